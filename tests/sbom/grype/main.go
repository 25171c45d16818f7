// Writes advisories as a database of Grype's form, by Grype's own packages.
//
// Usage: grype-database ADVISORIES.json DIRECTORY
//
// The advisories are a list of {"system", "release", "major", "minor", "package", "module", "cve", "fixed"}; the
// database is DIRECTORY/vulnerability.db, which `grype db import` takes as a tar archive.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	// The program that reads the database, so that go.mod has what it is built from.
	_ "github.com/anchore/grype/cmd/grype/cli"
	v6 "github.com/anchore/grype/grype/db/v6"
)

type advisory struct {
	System  string  `json:"system"`
	Release string  `json:"release"`
	Major   string  `json:"major"`
	Minor   string  `json:"minor"`
	Package string  `json:"package"`
	Module  *string `json:"module"`
	CVE     string  `json:"cve"`
	Fixed   string  `json:"fixed"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: grype-database ADVISORIES.json DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "grype-database:", err)
		os.Exit(1)
	}
}

func write(path, directory string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var advisories []advisory
	if err := json.Unmarshal(text, &advisories); err != nil {
		return err
	}
	database, err := v6.NewWriter(v6.Config{DBDirPath: directory, CacheSizeKiB: 1024})
	if err != nil {
		return err
	}
	defer database.Close()
	if err := database.SetDBMetadata(); err != nil {
		return err
	}
	now := time.Now()
	for _, one := range advisories {
		provider := &v6.Provider{ID: one.System, Version: "1", Processor: "test", DateCaptured: &now}
		vulnerability := &v6.VulnerabilityHandle{
			Name: one.CVE, Status: v6.VulnerabilityActive, ProviderID: one.System, Provider: provider,
			BlobValue: &v6.VulnerabilityBlob{ID: one.CVE},
		}
		if err := database.AddVulnerabilities(vulnerability); err != nil {
			return err
		}
		blob := &v6.PackageBlob{Ranges: []v6.Range{{
			Version: v6.Version{Type: "rpm", Constraint: "< " + one.Fixed},
			Fix:     &v6.Fix{Version: one.Fixed, State: v6.FixedStatus},
		}}}
		if one.Module != nil {
			blob.Qualifiers = &v6.PackageQualifiers{RpmModularity: one.Module}
		}
		affected := &v6.AffectedPackageHandle{
			Vulnerability:   vulnerability,
			OperatingSystem: &v6.OperatingSystem{Name: one.System, ReleaseID: one.Release, MajorVersion: one.Major, MinorVersion: one.Minor},
			Package:         &v6.Package{Ecosystem: "rpm", Name: one.Package},
			BlobValue:       blob,
		}
		if err := database.AddAffectedPackages(affected); err != nil {
			return err
		}
	}
	return nil
}
