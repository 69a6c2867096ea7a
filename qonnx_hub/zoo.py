"""Published models of the QONNX model zoo, by name: found, fetched, verified, checked.

A file is taken from a mirror, a folder that holds the zoo's files under their own names, or is
downloaded once and kept. Either way it is compared with the recorded hash before it is used.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from qonnx_hub.io.arrays import read_arrays
from qonnx_hub_adapters.dependencies import require
from qonnx_hub_ir.analysis.float_error import REORDERED
from qonnx_hub_ir.errors import SourceError, UsageError

MIRROR_VARIABLE = "QONNX_HUB_ZOO"
"""Environment variable that names a mirror."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A published model.

    Attributes:
        name: Its name, without regard to case.
        url: Where it is published.
        sha256: Hash of the file; empty where none is recorded.
        dataset: What it was trained on.
        topology: What it is.
        input_bits: Of the input, as published.
        weight_bits: Of the weights, as published.
        activation_bits: Of the activations, as published.
        accuracy: As published; empty where nothing is.
        preprocessing: What an input is, and how data become one.
        note: What else is to be known, such as where the accuracy comes from.
    """

    name: str
    url: str
    sha256: str
    dataset: str
    topology: str
    input_bits: str
    weight_bits: str
    activation_bits: str
    accuracy: str
    preprocessing: str
    note: str = ""

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as plain data, fit for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ZooCheck:
    """What was found out about one model of the zoo.

    Attributes:
        name: Its name.
        path: The file.
        sha256: Its hash.
        published: Whether that is the recorded one; ``None`` where none is recorded.
        samples: Recorded samples that were run; 0 where there are none.
        values: Output values compared.
        different: How many of them differ at all.
        largest: Largest difference.
        equal: Whether every difference is within float rounding; ``None`` if nothing was run.
    """

    name: str
    path: str
    sha256: str
    published: bool | None
    samples: int = 0
    values: int = 0
    different: int = 0
    largest: float = 0.0
    equal: bool | None = None

    def __bool__(self) -> bool:
        """Return whether nothing speaks against the file."""
        return self.published is not False and self.equal is not False

    def to_dict(self) -> dict[str, Any]:
        """Return the check as plain data, fit for JSON."""
        return asdict(self)


@cache
def entries() -> tuple[Entry, ...]:
    """Return all models that are known, in the order of the list."""
    text = resources.files("qonnx_hub").joinpath("zoo.json").read_text(encoding="utf-8")
    return tuple(Entry(**row) for row in json.loads(text))


def find(name: str) -> Entry:
    """Return the model of that name.

    Raises:
        UsageError: There is none; near names are listed.
    """
    known = {entry.name.lower(): entry for entry in entries()}
    found = known.get(name.lower())
    if found is not None:
        return found
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    names = [known[key].name for key in near] or [entry.name for entry in entries()]
    words = "near names" if near else "there are"
    raise UsageError(f"the zoo has no '{name}'; {words}: {', '.join(names)}")


def mirror_folder(mirror: str | Path | None = None) -> Path | None:
    """Return the mirror's folder: the one given, else that of the environment, else ``None``.

    Raises:
        UsageError: It is no folder.
    """
    given = mirror or os.environ.get(MIRROR_VARIABLE)
    if not given:
        return None
    folder = Path(given)
    if not folder.is_dir():
        where = "" if mirror else f" (from {MIRROR_VARIABLE})"
        raise UsageError(f"the mirror '{folder}'{where} is no folder")
    return folder


def get(
    name: str,
    *,
    mirror: str | Path | None = None,
    cache_folder: str | Path | None = None,
    allow_unverified: bool = False,
) -> Path:
    """Return the file of a published model, downloading it where there is no mirror.

    Args:
        name: Name of the model, without regard to case.
        mirror: Folder that holds the zoo's files under their own names; that of the
            environment variable ``QONNX_HUB_ZOO`` by default.
        cache_folder: Where downloads are kept; the system's cache folder by default.
        allow_unverified: Take a file although no hash is recorded for it.

    Raises:
        UsageError: No such model or folder, or no hash is recorded and that is not allowed.
        SourceError: The file is not there, cannot be fetched, or is not the published one.
        MissingDependencyError: A download needs pooch, which is not installed.
    """
    return fetch(find(name), mirror, cache_folder, allow_unverified=allow_unverified)


def fetch(
    entry: Entry,
    mirror: str | Path | None = None,
    cache_folder: str | Path | None = None,
    *,
    allow_unverified: bool = False,
) -> Path:
    """Return the file of an entry, which need not be one of the zoo's; see :func:`get`."""
    folder = mirror_folder(mirror)
    if not entry.sha256 and not allow_unverified:
        raise UsageError(
            f"no hash is recorded for '{entry.name}': a wrong file cannot be told "
            f"from the published one; allow that with allow_unverified (--allow-unverified)"
        )
    if folder is None:
        return _download(entry, cache_folder)
    path = _in_mirror(entry, folder)
    if path is None:
        raise SourceError(f"the mirror '{folder}' has no {entry.file}")
    if entry.sha256 and (digest := _hash(path)) != entry.sha256:
        raise SourceError(
            f"'{path}' is not the published {entry.name}: its sha256 is {digest}, "
            f"that of the published file is {entry.sha256}"
        )
    return path


def check(name: str, *, mirror: str | Path | None = None) -> ZooCheck:
    """Return whether a model's file is the published one and computes what was recorded.

    Where ``NAME.io.npz`` lies beside the file, its inputs ``x`` (the first axis counts samples
    of the graph's own batch) are run and compared with its outputs ``y``.

    Args:
        name: Name of the model.
        mirror: As in :func:`get`.

    Raises:
        HubError: As in :func:`get`; a file with another hash is reported, not raised.
    """
    entry, folder = find(name), mirror_folder(mirror)
    if folder is None:
        path: Path | None = get(name, allow_unverified=True)
    else:
        path = _in_mirror(entry, folder)
    if path is None:
        raise SourceError(f"the mirror '{folder}' has no {entry.file}")
    digest = _hash(path)
    published = digest == entry.sha256 if entry.sha256 else None
    found = ZooCheck(entry.name, str(path), digest, published)
    recorded = path.with_name(f"{path.stem}.io.npz")
    return _compared(found, path, recorded) if recorded.exists() else found


def available(mirror: str | Path | None = None) -> list[str]:
    """Return the names of the models whose files the mirror holds."""
    folder = mirror_folder(mirror)
    if folder is None:
        return []
    return [entry.name for entry in entries() if _in_mirror(entry, folder) is not None]


def _in_mirror(entry: Entry, folder: Path) -> Path | None:
    """Return the file in a flat folder, or in a clone of the zoo's repository."""
    below = entry.url.partition("/models/")[2]
    for path in (folder / entry.file, folder / "models" / below, folder / below):
        if path.is_file():
            return path
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _download(entry: Entry, cache_folder: str | Path | None) -> Path:
    pooch = require("pooch", needed_by="a download from the zoo", extra="zoo")
    pooch.get_logger().setLevel("WARNING")
    folder = Path(cache_folder) if cache_folder else Path(pooch.os_cache("qonnx-hub")) / "zoo"
    try:
        path = pooch.retrieve(
            entry.url,
            known_hash=f"sha256:{entry.sha256}" if entry.sha256 else None,
            fname=entry.file,
            path=folder,
        )
    except Exception as error:  # pooch lets through whatever its transport raises
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(
            f"{entry.name} cannot be fetched from {entry.url}: {reason}"
        ) from error
    return Path(path)


def _compared(found: ZooCheck, path: Path, recorded: Path) -> ZooCheck:
    from qonnx_hub.api import load
    from qonnx_hub.executor.session import Session

    arrays = read_arrays(recorded)
    if "x" not in arrays or "y" not in arrays:
        raise SourceError(f"'{recorded}' does not hold the arrays x and y")
    inputs, outputs = arrays["x"], arrays["y"]
    if len(inputs) != len(outputs) or not len(inputs):
        raise SourceError(
            f"'{recorded}' holds {len(inputs)} inputs and {len(outputs)} outputs"
        )
    session = Session(load(path))
    name = session.input_names[0]
    results = [next(iter(session.run({name: x}).values())) for x in inputs]
    values = np.stack(results).astype(np.float64).reshape(outputs.shape)
    distance = np.abs(values - outputs)
    largest = float(distance.max())
    reach = max(float(np.abs(outputs).max()), 1.0)
    return replace(
        found,
        samples=len(inputs),
        values=int(distance.size),
        different=int(np.count_nonzero(distance)),
        largest=largest,
        equal=bool(largest <= REORDERED * reach),
    )


__all__ = [
    "MIRROR_VARIABLE",
    "Entry",
    "ZooCheck",
    "available",
    "check",
    "entries",
    "fetch",
    "find",
    "get",
    "mirror_folder",
]
