"""Checkpoints as files: safetensors with their whole provenance, refused where anything is off.

They are packed with xz, as `xz -d` unpacks them: what ships takes seven tenths of the space so.
"""

import hashlib
import json
import lzma
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from icl.checkpoints import RECORDED, Checkpoint, with_weights
from icl.configuration import Configuration
from icl.errors import Refused, choose, require
from icl.training import packed, unpacked, write_atomically

TRAINED = Path(__file__).parent / "trained"
SUFFIX = ".safetensors.xz"
FORMAT = "icl-checkpoint-3"
# Numbers take two bytes each, of which the one with sign and exponent packs well and the other not.
PACKING = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 3, "lp": 1, "pb": 1}]
LARGEST = 2**30  # bytes of an unpacked file
WEIGHTS = (torch.float16, torch.float32)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    weights = checkpoint.model.state_dict()
    tensors = {f"model.{k}": _short(v).contiguous() for k, v in weights.items()}
    tensors |= packed(checkpoint.snapshots)
    for name in RECORDED:
        tensors[name] = getattr(checkpoint, name).contiguous()
    about = {
        "format": FORMAT,
        "config": json.dumps(checkpoint.config.to_dict()),
        "hash": checkpoint.config.hash,
        "seeds": json.dumps(checkpoint.seeds),
        "seconds": repr(checkpoint.seconds),
        "versions": json.dumps(checkpoint.versions),
    }
    about["digest"] = _digest(tensors, about)
    content = lzma.compress(safetensors.torch.save(tensors, about), filters=PACKING)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _short(weights: Tensor) -> Tensor:
    """The same numbers in half precision, where nothing of them is lost."""
    half = weights.half()
    return half if torch.equal(half.to(weights), weights) else weights


def file_in(folder: Path, name: str) -> Path:
    """The file of a model in a folder."""
    return folder / f"{name}{SUFFIX}"


def name_of(path: Path) -> str:
    """The name of the model in a file."""
    return path.name.removesuffix(SUFFIX)


def catalogue() -> list[str]:
    """Names of the trained models that ship with the package."""
    return sorted(map(name_of, TRAINED.glob(f"*{SUFFIX}")))


def load(name: str | Path) -> Checkpoint:
    """Load a shipped model by name, or a checkpoint file by its path.

    >>> load("workhorse-3").model.config.heads
    (8, 8, 8)
    """
    path = Path(name)
    if not path.name.endswith(SUFFIX):
        path = file_in(TRAINED, choose("model", str(name), catalogue()))
    require(path.is_file(), f"{path}: no such file; `icl list` names the models that ship")
    try:
        content = _unpacked(path.read_bytes())
        tensors = safetensors.torch.load(content)
    except (SafetensorError, lzma.LZMAError, OSError) as error:
        raise Refused(f"{path}: damaged, or not a packed safetensors file ({error})") from None
    about = _metadata(content)
    require(
        about.get("format") == FORMAT,
        f"{path}: not a checkpoint of this library (format {about.get('format')!r}; "
        f"allowed is {FORMAT!r})",
    )
    given = about.pop("digest", None)
    require(given == _digest(tensors, about), f"{path}: damaged (its digest differs)")
    try:
        return _read(name_of(path), about, tensors)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise Refused(f"{path}: its metadata and tensors do not fit together ({reason})") from None


def _unpacked(packed: bytes) -> bytes:
    """The whole content of a packed file; one that would fill the memory is damaged."""
    reader = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    content = reader.decompress(packed, LARGEST)
    if not reader.eof or reader.unused_data:
        raise lzma.LZMAError("its end is missing, or is not where it should be")
    return content


def _metadata(content: bytes) -> dict[str, Any]:
    """What a safetensors file says beside its tensors, which its library reads from paths only."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]).get("__metadata__", {})


def _read(name: str, about: dict[str, str], tensors: dict[str, Tensor]) -> Checkpoint:
    """A checkpoint from the parts of a file."""
    known = {"format", "config", "hash", "seeds", "seconds", "versions"}
    require(about.keys() == known, f"metadata {sorted(about)}: allowed are {sorted(known)}")
    config = Configuration.from_dict(json.loads(about["config"]))
    require(about["hash"] == config.hash, "its configuration does not match its hash")
    seeds = tuple(json.loads(about["seeds"]))
    for what, tensor in tensors.items():
        require(
            tensor.dtype in ((RECORDED[what],) if what in RECORDED else WEIGHTS),
            f"{what} of {tensor.dtype}: not allowed",
        )
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    snapshots = unpacked(tensors)
    known = {f"model.{k}" for k in weights} | packed(snapshots).keys() | set(RECORDED)
    require(tensors.keys() == known, f"tensors {sorted(tensors.keys() ^ known)}: not allowed")
    return Checkpoint(
        name=name,
        model=with_weights(config, seeds, weights),
        config=config,
        seeds=seeds,
        **{what: tensors[what] for what in RECORDED},
        seconds=json.loads(about["seconds"]),
        versions=json.loads(about["versions"]),
        snapshots=snapshots,
    )


def _digest(tensors: dict[str, Tensor], about: dict[str, str]) -> str:
    """SHA-256 over the metadata and over names, shapes and bytes of all tensors."""
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy())  # bfloat16, too
    return total.hexdigest()
