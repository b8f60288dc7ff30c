"""What W&B wrote offline, read back from its files."""

import json
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record


def records(path: Path) -> Iterator[Record]:
    """The records of a `run-*.wandb` file: 7 bytes of header, then LevelDB's log format, blocks of 32 KiB.

    Ends where a file that is still being written does.  Source: https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        begin, position = position + 7, position + 7 + length
        if position > len(data):
            return
        record += data[begin:position]
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(record)
            record = b""


def closed(path: Path) -> list[Record]:
    """The records of a finished run.  wandb's service may write the last ones some time after `finish`."""
    deadline = time.monotonic() + 30  # 2.4 s seen on a machine with four times more work than cores
    while time.monotonic() < deadline:
        found = list(records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.002)
    raise TimeoutError(f"{path} never got its exit record")


def decode(items: Iterable) -> dict:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_back(folder: Path) -> dict:
    """The only run under `folder`: its id, name, group, ..., config, history, summary, artifacts and exit code."""
    [path] = folder.glob("wandb/offline-run-*/run-*.wandb")
    found = {"config": {}, "history": [], "summary": {}, "artifacts": {}}
    for record in closed(path):
        match record.WhichOneof("record_type"):
            case "run":
                run = record.run
                found |= {"id": run.run_id, "name": run.display_name, "group": run.run_group, "tags": list(run.tags)}
                found |= {"project": run.project, "job_type": run.job_type}
                found["config"] |= decode(run.config.update)
            case "config":
                found["config"] |= decode(record.config.update)
            case "history":
                found["history"].append(decode(record.history.item))
            case "summary":
                found["summary"] |= decode(record.summary.update)
            case "artifact":
                artifact = record.artifact
                files = {each.path: Path(each.local_path) for each in artifact.manifest.contents}
                found["artifacts"][artifact.name] = {"kind": artifact.type, "files": files}
            case "exit":
                found["exit_code"] = record.exit.exit_code
    return found


def table(run: dict, name: str) -> dict:
    """A table as it was written: its columns, its rows, and each image's file by its name."""
    [artifact] = [each for each in run["artifacts"].values() if each["kind"] == "run_table"]
    return json.loads(artifact["files"][f"{name}.table.json"].read_text()) | {"files": artifact["files"]}
