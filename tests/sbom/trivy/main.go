// Matches bills of materials with advisories as Trivy does, by Trivy's own packages: its decoders of CycloneDX and
// SPDX, and its detectors of vulnerabilities in packages of a distribution.
//
// Usage: trivy-judge ADVISORIES.json DOCUMENT...
//
// The advisories are a list of {"path": [bucket..., key], "value": any}, and become a database of Trivy's form in
// a directory of its own. Prints one JSON object: for each document its findings as "CVE package", sorted, or
// "error: why".
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sort"

	"github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy/pkg/detector/ospkg"
	"github.com/aquasecurity/trivy/pkg/log"
	"github.com/aquasecurity/trivy/pkg/sbom"
	"github.com/aquasecurity/trivy/pkg/types"
	bolt "go.etcd.io/bbolt"
)

type row struct {
	Path  []string        `json:"path"`
	Value json.RawMessage `json:"value"`
}

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: trivy-judge ADVISORIES.json DOCUMENT"))
	}
	log.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	dir, err := os.MkdirTemp("", "trivy-judge")
	fail(err)
	defer os.RemoveAll(dir)
	fail(fill(filepath.Join(dir, "trivy.db"), os.Args[1]))
	fail(db.Init(dir))
	defer db.Close()
	findings := map[string]any{}
	for _, path := range os.Args[2:] {
		found, err := judge(path)
		if err != nil {
			findings[path] = "error: " + err.Error()
		} else {
			findings[path] = found
		}
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	fail(out.Encode(findings))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "trivy-judge:", err)
		os.Exit(2)
	}
}

func fill(path, advisories string) error {
	text, err := os.ReadFile(advisories)
	if err != nil {
		return err
	}
	var rows []row
	if err := json.Unmarshal(text, &rows); err != nil {
		return err
	}
	store, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	return store.Update(func(tx *bolt.Tx) error {
		for _, row := range rows {
			bucket, err := tx.CreateBucketIfNotExists([]byte(row.Path[0]))
			last := len(row.Path) - 1
			for _, name := range row.Path[1:last] {
				if err != nil {
					return err
				}
				bucket, err = bucket.CreateBucketIfNotExists([]byte(name))
			}
			if err != nil {
				return err
			}
			if err := bucket.Put([]byte(row.Path[last]), row.Value); err != nil {
				return err
			}
		}
		return nil
	})
}

func judge(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	format, err := sbom.DetectFormat(file)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	bom, err := sbom.Decode(ctx, file, format)
	if err != nil {
		return nil, err
	}
	// Without a system Trivy finds nothing and says nothing.
	found := []string{}
	if bom.Metadata.OS == nil || len(bom.Packages) == 0 {
		return found, nil
	}
	target := types.ScanTarget{Name: path, OS: *bom.Metadata.OS, Packages: bom.Packages[0].Packages}
	detector, err := ospkg.NewDetector(target)
	if err != nil {
		return nil, err
	}
	vulnerabilities, _, err := detector.Detect(ctx)
	if err != nil {
		return nil, err
	}
	for _, one := range vulnerabilities {
		found = append(found, one.VulnerabilityID+" "+one.PkgName)
	}
	sort.Strings(found)
	return found, nil
}
