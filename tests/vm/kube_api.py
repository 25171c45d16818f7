"""The API server of a cluster with one kind of object, VirtualMachineInstances, as far as the sensor of a node asks it.

It listens on a unix socket, the one to which the VSOCK device carries what a guest sends to its host's port. The contract that
the real one is held against is in tests/it/kube_contract.rs; this answers only what is well.
"""

import contextlib
import http.server
import json
import os
import socketserver
import ssl
import subprocess
import threading
from urllib.parse import parse_qs, urlsplit

PLURAL = "virtualmachineinstances"


class KubeApi:
    """A running one; `targets` is what it was asked for."""

    def __init__(self, socket, work):
        self.version, self.events, self.objects, self.targets = 100, [], {}, []
        self.changed = threading.Condition()
        self.certificate, key = os.path.join(work, "api.pem"), os.path.join(work, "api.key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
                        "-keyout", key, "-out", self.certificate], check=True, capture_output=True)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.certificate, key)
        self.server = Server(socket, handler(self, tls))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def put(self, instance, kind="MODIFIED"):
        """Something happens to an instance: ADDED, MODIFIED or DELETED."""
        with self.changed:
            self.version += 1
            instance["metadata"]["resourceVersion"] = str(self.version)
            name = instance["metadata"]["name"]
            self.objects.pop(name, None)
            if kind != "DELETED":
                self.objects[name] = instance
            self.events.append((self.version, {"type": kind, "object": json.loads(json.dumps(instance))}))
            self.changed.notify_all()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def instance(name, cid, run):
    """A running machine of the node n1, in its run of this number."""
    machine = "0c9d2b0e-7f4e-4a34-8a3c-9f4c3a5b1c11"
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": f"5d1f6d62-0b7e-4c0f-9d59-{run:012x}", "labels": {"kubevirt.io/nodeName": "n1"},
                     "ownerReferences": [{"kind": "VirtualMachine", "name": name, "uid": machine, "controller": True}]},
        "spec": {"domain": {"devices": {"autoattachVSOCK": True}}},
        "status": {"phase": "Running", "nodeName": "n1", "VSOCKCID": cid},
    }


def handler(api, tls):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            self.request = tls.wrap_socket(self.request, server_side=True)
            super().setup()

        def address_string(self):
            return "guest"

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.close_connection = True
            target = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(target.query).items()}
            with api.changed:
                api.targets.append(self.path)
            if not target.path.endswith(f"/{PLURAL}"):
                self.send_error(404)
            elif query.get("watch") == "true":
                # Until the client is gone.
                with contextlib.suppress(OSError):
                    self.watch(int(query["resourceVersion"]))
            else:
                with api.changed:
                    listed = {"items": list(api.objects.values()), "metadata": {"continue": "", "resourceVersion": str(api.version)}}
                body = json.dumps(listed).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def watch(self, version):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while True:
                with api.changed:
                    api.changed.wait_for(lambda: api.version > version)
                    new = [event for at, event in api.events if at > version]
                    version = api.version
                for event in new:
                    line = json.dumps(event).encode() + b"\n"
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    return Handler
