"""A small W&B server on this machine: keeps what runs send, as the real one does, or misbehaves.

What wandb 0.31 asks and how it reads the answers was seen by listening to it.  Runs keep their history by line numbers, so
what is sent twice at the same place stands there once, and what is appended twice stands there twice.
"""

import gzip
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "0123456789" * 4
PROJECT = {"id": "p", "internalId": "p", "name": "vltune", "entity": {"id": "e", "name": "someone"}}


@dataclass
class Run:
    """What the server holds of a run; `upserts` are the variables of each time that it was opened or changed."""

    id: str
    upserts: list[dict] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def history(self) -> list[dict]:
        return [json.loads(line) for line in self.lines.get("wandb-history.jsonl", [])]

    @property
    def summary(self) -> dict:
        return json.loads(self.lines["wandb-summary.json"][-1])

    @property
    def config(self) -> dict:
        return {key: entry["value"] for key, entry in json.loads(self.last("config")).items()}

    def last(self, key: str):
        """The last value that was given for a field, such as `tags` or `groupName`."""
        return next((value for upsert in reversed(self.upserts) if (value := upsert.get(key)) is not None), None)

    def bucket(self) -> dict:
        lines = self.lines.get("wandb-history.jsonl", [])
        return {
            "id": f"bucket {self.id}",
            "name": self.id,
            "displayName": self.last("displayName"),
            "summaryMetrics": self.lines.get("wandb-summary.json", ["{}"])[-1],
            "config": self.last("config"),
            "tags": self.last("tags"),
            "notes": None,
            "logLineCount": 0,
            "historyLineCount": len(lines),
            "eventsLineCount": len(self.lines.get("wandb-events.jsonl", [])),
            "historyTail": json.dumps(lines[-1:]),
            "eventsTail": "[]",
            "wandbConfig": json.dumps({"t": 1}),
        }


@dataclass
class Artifact:
    """A collection; `versions` are the digests of its contents."""

    kind: str
    run: str
    versions: list[str] = field(default_factory=list)


class Server:
    """fault(server, operation) -> None, or a status, "hang" or "close"; an operation is a GraphQL one's name, or a path."""

    def __init__(self, fault):
        self.fault = fault
        self.asked: list[str] = []
        self.unanswered: list[str] = []
        self.runs: dict[str, Run] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.uploaded: dict[str, bytes] = {}
        self.stopping = threading.Event()
        self.lock = threading.RLock()

    def answer(self, operation: str, asked: dict) -> dict:
        try:
            return {"data": getattr(self, f"on_{operation}")(**asked)}
        except Exception as error:
            self.unanswered.append(f"{operation}({', '.join(asked)}): {error}")
            return {"errors": [{"message": f"unknown: {operation}"}]}

    def on_Viewer(self, **_):
        return {
            "viewer": {"id": "u", "entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}
        }

    def on_ServerFeaturesQuery(self, **_):
        return {"serverInfo": {"features": []}}

    def on_RunResumeStatus(self, name, **_):
        return {"model": {**PROJECT, "bucket": self.runs[name].bucket() if name in self.runs else None}}

    def on_UpsertBucket(self, name, **asked):
        new = name not in self.runs
        run = self.runs.setdefault(name, Run(name))
        run.upserts.append(asked)
        bucket = {**run.bucket(), "description": None, "sweepName": asked.get("sweep"), "project": PROJECT}
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def on_CreateRunFiles(self, run, files, **_):
        created = [{"name": file, "uploadUrl": f"{self.address}/upload/{run}/{file}"} for file in files]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": created}}

    def on_ArtifactType(self, name, **_):
        known = self.artifacts.get(name.partition(":")[0])
        return {"project": {"artifact": known and {"artifactType": {"name": known.kind}}}}

    def on_CreateArtifact(self, input):
        name, digest = input["artifactCollectionName"], input["digest"]
        kept = self.artifacts.setdefault(name, Artifact(input["artifactTypeName"], input["runName"]))
        new = digest not in kept.versions
        if new:
            kept.versions.append(digest)
        state = "PENDING" if new else "COMMITTED"
        sequence = {"id": f"sequence {name}", "latestArtifact": None}
        return {
            "createArtifact": {"artifact": {"id": f"{name}:{digest}", "state": state, "artifactSequence": sequence}}
        }

    def on_CreateArtifactManifest(self, artifactID, **_):
        file = {
            "id": "f",
            "displayName": "m",
            "uploadUrl": f"{self.address}/manifest/{artifactID}",
            "uploadHeaders": [],
        }
        return {"createArtifactManifest": {"artifactManifest": {"id": artifactID, "file": file}}}

    on_UpdateArtifactManifest = on_CreateArtifactManifest

    def on_CreateArtifactFiles(self, input, **_):
        edges = [
            {
                "node": {
                    "id": "f",
                    "name": file["name"],
                    "displayName": file["name"],
                    "uploadUrl": f"{self.address}/artifact/{file['artifactID']}/{file['name']}",
                    "uploadHeaders": [],
                    "artifact": {"id": file["artifactID"]},
                }
            }
            for file in input["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, artifactID, **_):
        return {"commitArtifact": {"artifact": {"id": artifactID, "digest": artifactID.partition(":")[2]}}}

    def on_ArtifactByID(self, id, **_):
        name, _, digest = id.partition(":")
        collection = {"__typename": "ArtifactSequence", "name": name, "project": PROJECT}
        known = self.artifacts[name]
        version = {"versionIndex": known.versions.index(digest), "digest": digest, "digestAlgorithm": "MANIFEST_MD5"}
        empty = {"description": None, "metadata": "{}", "ttlDurationSeconds": -2, "ttlIsInherited": False, "tags": []}
        rest = {"historyStep": None, "state": "COMMITTED", "size": 0, "commitHash": "", "fileCount": 0, "aliases": []}
        times = dict.fromkeys(("createdAt", "updatedAt"), "2026-01-01T00:00:00")
        kind = {"artifactSequence": collection, "artifactType": {"name": known.kind}}
        return {"artifact": {"__typename": "Artifact", "id": id, **kind, **version, **empty, **rest, **times}}

    def on_OrganizationCoreWeaveOrganizationID(self, **_):
        return {"entity": {"organization": None}}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stream(self, run: str, sent: dict) -> None:
        for name, part in sent.get("files", {}).items():
            lines = self.runs[run].lines.setdefault(name, [])
            lines[part["offset"] : part["offset"] + len(part["content"])] = part["content"]
        if sent.get("complete"):
            self.runs[run].exit_code = sent["exitcode"]


@contextmanager
def serving(fault=lambda server, operation: None):
    server = Server(fault)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            graphql = json.loads(body) if self.path == "/graphql" else None
            operation = re.search(r"(?:query|mutation)\s+(\w+)", graphql["query"])[1] if graphql else self.path
            with server.lock:
                server.asked.append(operation)
                fault = server.fault(server, operation)
            if fault is not None:
                return self.misbehave(fault)
            with server.lock:
                if graphql:
                    return self.reply(server.answer(operation, graphql.get("variables") or {}))
                if self.path.endswith("/file_stream"):
                    server.stream(self.path.split("/")[-2], json.loads(body))
                else:
                    server.uploaded[self.path] = body
            return self.reply({})

        do_PUT = do_GET = do_POST

        def reply(self, answer, status=200, **headers):
            body = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

        def misbehave(self, fault):
            if fault == "hang":
                server.stopping.wait()
            if fault in ("hang", "close"):
                self.close_connection = True
                return
            self.reply({"errors": [{"message": "no"}]}, fault, **({"Retry-After": 1} if fault == 429 else {}))

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    listening.handle_error = lambda *_: None  # a client that has gone away is none of the test's errors
    server.port = listening.server_port
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.stopping.set()
        listening.shutdown()
        listening.server_close()
