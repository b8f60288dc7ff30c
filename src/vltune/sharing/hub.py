"""An exported folder to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from vltune.errors import UserError


def send(folder: Path, repository: str) -> str:
    """Uploads a folder to a private repository, which is made where it is not there; returns its address.

    UserError in one line where it is no exported folder, or the Hub cannot be reached or refuses."""
    from huggingface_hub import HfApi

    if not (folder / "README.md").is_file() or not [*folder.glob("*.safetensors")]:
        raise UserError(f"{folder}: is no folder that vltune export wrote")
    hub = HfApi()
    try:
        address = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # its own, and those of the HTTP library that its version has
        told = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"{repository}: the Hub could not be reached, or refused it ({told}); nothing here was changed"
        ) from None
    return str(address)
