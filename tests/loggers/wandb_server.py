"""A small W&B server on this machine: keeps what runs send, as the real one does, or misbehaves.

What wandb 0.31 asks, and what answers it takes, was seen by listening to it.  A history is kept by line numbers, so what
is sent twice to the same place stands there once, and what is appended twice stands there twice.
"""

import gzip
import json
import re
import threading
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
            "wandbConfig": json.dumps(
                {"t": 1} if self.upserts else {}
            ),  # what tells a run that has begun from a planned one
        }


@dataclass
class Artifact:
    """A collection; `versions` are the digests of its contents."""

    kind: str
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
        self.address = ""

    def answer(self, operation: str, asked: dict) -> dict:
        try:
            return {"data": self.ANSWERS[operation](self, asked)}
        except Exception as error:
            self.unanswered.append(f"{operation} {asked}: {error!r}")
            return {"errors": [{"message": f"unknown: {operation}"}]}

    def viewer(self, asked: dict) -> dict:
        teams = {"edges": []}
        return {"viewer": {"id": "u", "entity": "someone", "username": "someone", "flags": "{}", "teams": teams}}

    def resume_status(self, asked: dict) -> dict:
        run = self.runs.get(asked["name"])
        return {"model": {**PROJECT, "bucket": run and run.bucket()}}

    def upsert_run(self, asked: dict) -> dict:
        new = asked["name"] not in self.runs
        run = self.runs.setdefault(asked["name"], Run(asked["name"]))
        run.upserts.append(asked)
        bucket = {**run.bucket(), "description": None, "sweepName": asked.get("sweep"), "project": PROJECT}
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def run_files(self, asked: dict) -> dict:
        at = f"{self.address}/upload/{asked['run']}"
        files = [{"name": name, "uploadUrl": f"{at}/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}

    def artifact_type(self, asked: dict) -> dict:
        known = self.artifacts.get(asked["name"].partition(":")[0])
        return {"project": {"artifact": known and {"artifactType": {"name": known.kind}}}}

    def create_artifact(self, asked: dict) -> dict:
        given = asked["input"]
        name, digest = given["artifactCollectionName"], given["digest"]
        kept = self.artifacts.setdefault(name, Artifact(given["artifactTypeName"]))
        new = digest not in kept.versions
        if new:
            kept.versions.append(digest)
        state = {"id": f"{name}:{digest}", "state": "PENDING" if new else "COMMITTED"}
        sequence = {"id": f"sequence {name}", "latestArtifact": None}
        return {"createArtifact": {"artifact": {**state, "artifactSequence": sequence}}}

    def artifact_manifest(self, asked: dict) -> dict:
        id = asked["artifactID"]
        file = {"id": "f", "displayName": "m", "uploadUrl": f"{self.address}/manifest/{id}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": id, "file": file}}}

    def artifact_files(self, asked: dict) -> dict:
        nodes = []
        for file in asked["input"]["artifactFiles"]:
            names = {"id": "f", "name": file["name"], "displayName": file["name"]}
            url = f"{self.address}/artifact/{file['artifactID']}/{file['name']}"
            nodes.append({**names, "uploadUrl": url, "uploadHeaders": [], "artifact": {"id": file["artifactID"]}})
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def commit_artifact(self, asked: dict) -> dict:
        id = asked["artifactID"]
        return {"commitArtifact": {"artifact": {"id": id, "digest": id.partition(":")[2]}}}

    def artifact(self, asked: dict) -> dict:
        name, _, digest = asked["id"].partition(":")
        known = self.artifacts[name]
        sequence = {"__typename": "ArtifactSequence", "name": name, "project": PROJECT}
        kind = {"artifactSequence": sequence, "artifactType": {"name": known.kind}}
        version = {"versionIndex": known.versions.index(digest), "digest": digest, "digestAlgorithm": "MANIFEST_MD5"}
        empty = {"description": None, "metadata": "{}", "ttlDurationSeconds": -2, "ttlIsInherited": False, "tags": []}
        rest = {"historyStep": None, "state": "COMMITTED", "size": 0, "commitHash": "", "fileCount": 0, "aliases": []}
        times = dict.fromkeys(("createdAt", "updatedAt"), "2026-01-01T00:00:00")
        return {"artifact": {"__typename": "Artifact", "id": asked["id"], **kind, **version, **empty, **rest, **times}}

    ANSWERS = {  # noqa: RUF012
        "Viewer": viewer,
        "ServerFeaturesQuery": lambda self, asked: {"serverInfo": {"features": []}},
        "OrganizationCoreWeaveOrganizationID": lambda self, asked: {"entity": {"organization": None}},
        "RunResumeStatus": resume_status,
        "UpsertBucket": upsert_run,
        "CreateRunFiles": run_files,
        "ArtifactType": artifact_type,
        "CreateArtifact": create_artifact,
        "CreateArtifactManifest": artifact_manifest,
        "CreateArtifactFiles": artifact_files,
        "CommitArtifact": commit_artifact,
        "ArtifactByID": artifact,
    }

    def stream(self, run: str, sent: dict) -> None:
        for name, part in sent.get("files", {}).items():
            lines = self.runs[run].lines.setdefault(name, [])
            lines[part["offset"] : part["offset"] + len(part["content"])] = part["content"]
        if sent.get("complete"):
            self.runs[run].exit_code = sent["exitcode"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wandb: Server

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        graphql = json.loads(body) if self.path == "/graphql" else None
        operation = re.search(r"(?:query|mutation)\s+(\w+)", graphql["query"])[1] if graphql else self.path
        with self.wandb.lock:
            self.wandb.asked.append(operation)
            fault = self.wandb.fault(self.wandb, operation)
            if fault is None:
                answer = self.kept(graphql, operation, body)
        if fault is None:
            self.reply(answer)
        elif fault == "hang":
            self.wandb.stopping.wait()
        if fault in ("hang", "close"):
            self.close_connection = True
        elif fault is not None:
            self.reply({"errors": [{"message": "no"}]}, fault, **({"Retry-After": 1} if fault == 429 else {}))

    def do_GET(self):
        self.do_POST()

    def do_PUT(self):
        self.do_POST()

    def kept(self, graphql: dict | None, operation: str, body: bytes) -> dict:
        if graphql:
            return self.wandb.answer(operation, graphql.get("variables") or {})
        if self.path.endswith("/file_stream"):
            self.wandb.stream(self.path.split("/")[-2], json.loads(body))
        else:
            self.wandb.uploaded[self.path] = body
        return {}

    def reply(self, answer: dict, status: int = 200, **headers) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(fault=lambda server, operation: None):
    server = Server(fault)
    listening = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"wandb": server}))
    listening.daemon_threads = True
    listening.handle_error = lambda *_: None  # a client that has gone away is none of the test's errors
    server.address = f"http://127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.stopping.set()
        listening.shutdown()
        listening.server_close()
