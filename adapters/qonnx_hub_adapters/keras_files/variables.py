"""LayerWeights by place: Keras writes arrays in an order; their names say nothing.

Legacy files hold one list of arrays per top-level layer: all trainable ones in the order of
creation, then all others, through everything inside the layer. Trees hold a group per layer,
called after its class and counted, and a numbered array per variable.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from qonnx_hub_adapters.keras_files.graph import SHARED_MARK
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import Array

_MOST_ELEMENTS = 1 << 31
_SMALL, _MOST_PACKED = 1 << 26, 1100
"""Bytes that any array may have; how many one stored byte can hold (deflate: 1032)."""

_WIDTHS = frozenset({"b", "i", "f", "k", "i_decay_speed"})
_ROLES = frozenset({"iq", "oq", "kq", "bq", "sq", "rkq", "paq", "praq", "rhq"})
"""Variables of HGQ2's quantizers, and what it calls the quantizers of a layer."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells whether two layers of a file may be one object.

    Attributes:
        settings: Name, class and configuration.
        is_shared: Whether the file says that the object is met a second time here.
        generation: Of the Keras that wrote it, 2 or 3.
    """

    settings: tuple[Any, ...]
    is_shared: bool = False
    generation: int = 3

    def key(self) -> str:
        """Return a text that is the same for the places of one object."""
        return json.dumps(_unmarked(self.settings), sort_keys=True, default=str)


def _unmarked(value: Any) -> Any:
    """Return a configuration without what Keras adds where it meets an object again."""
    if isinstance(value, Mapping):
        return {key: _unmarked(one) for key, one in value.items() if key != SHARED_MARK}
    if isinstance(value, (list, tuple)):
        return [_unmarked(one) for one in value]
    return value


@dataclass(frozen=True, slots=True)
class Variables:
    """What an object holds, in the order of creation.

    Attributes:
        own: (name, trainable) of its own variables.
        parts: (attribute, what is behind it) of the objects inside, a path where several lie
            in one another ("iq/quantizer").
        frozen: Whether its variables count as not trainable.
        kind: Class of a layer in a container, whose group is called after it; else empty.
        path: Path of its group in the one around it, where it is not the attribute's name.
        identity: What tells a layer from others.
    """

    own: tuple[tuple[str, bool], ...] = ()
    parts: tuple[tuple[str, Variables], ...] = ()
    frozen: bool = False
    kind: str = ""
    path: str = ""
    identity: Identity | None = None

    def count(self) -> int:
        """Return the number of variables in it."""
        return len(self.own) + sum(part.count() for _, part in self.parts)


def variables(*names: str, fixed: Sequence[str] = (), **parts: Variables) -> Variables:
    """Return an object's variables: trainable ones, fixed ones, and parts by attribute."""
    own = [(name, True) for name in names] + [(name, False) for name in fixed]
    return Variables(tuple(own), tuple(parts.items()))


@dataclass(slots=True)
class LayerWeights:
    """Arrays of an object, by the names of its :class:`Variables`.

    Attributes:
        own: Name -> array.
        parts: Attribute -> arrays of the object behind it.
    """

    own: dict[str, Array] = field(default_factory=dict)
    parts: dict[str, LayerWeights] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        """Return an array by name."""
        return self.own[name]

    def get(self, name: str) -> Array | None:
        """Return an array by name; ``None`` where the object has none of it."""
        return self.own.get(name)


class Store(Protocol):
    """The arrays of a file."""

    def read(self, layers: Sequence[tuple[str, Variables]]) -> dict[str, LayerWeights]:
        """Return the arrays of the layers of a model, by layer.

        Args:
            layers: (name, variables) of every layer of the top-level model, in its order.

        Raises:
            SourceError: Numbers of arrays do not fit; layer and numbers are named.
        """


def array_of(dataset: Any, where: str) -> Array:
    """Return the numbers of a dataset.

    Raises:
        SourceError: It is no dataset, too large, or holds no numbers.
    """
    if not hasattr(dataset, "dtype"):
        raise SourceError(f"{where} is no array")
    if dataset.dtype.kind not in "fiub" or dataset.size > _MOST_ELEMENTS:
        raise SourceError(f"{where} holds {dataset.dtype} of shape {dataset.shape}")
    held = 0 if dataset.is_virtual or dataset.external else dataset.id.get_storage_size()
    if dataset.nbytes > max(_SMALL, _MOST_PACKED * held):
        raise SourceError(f"{where} says {dataset.nbytes} bytes, and the file holds {held}")
    if dataset.is_virtual or dataset.external:
        raise SourceError(f"{where} lies in another file, which is not read")
    found = np.asarray(dataset[()])
    return found.astype(np.float32) if found.dtype.kind == "f" else found


_Path: TypeAlias = tuple[str, ...]
"""Attributes on the way to an object."""
_Place: TypeAlias = tuple[_Path, str]
"""The way to an object, and a variable's name."""


class LegacyStore:
    """Lists of arrays per layer: .h5 files, and weights files of Keras 2."""

    def __init__(self, group: Any, label: str) -> None:
        self._group, self._label = group, label

    def read(self, layers: Sequence[tuple[str, Variables]]) -> dict[str, LayerWeights]:
        """Return the arrays of the layers; see :class:`Store`."""
        found = {}
        names = _names(self._group.attrs, "layer_names")
        unknown = sorted(name for name in names if name not in dict(layers))
        filled = [n for n in unknown if _names(self._group[n].attrs, "weight_names")]
        if filled:
            raise SourceError(
                f"'{self._label}' has weights of the layers {', '.join(filled[:5])}, which "
                "the model does not have"
            )
        for name, layout in layers:
            arrays = self._arrays(name) if name in names else []
            twins: dict[_Path, _Path] = {}
            if len(arrays) < layout.count():
                # Keras writes an object inside a layer once, wherever else it is held.
                twins = _twins(layout)
            if len(arrays) != len(_places(layout, twins)):
                raise SourceError(
                    f"'{self._label}' does not fit: layer '{name}' has {len(arrays)} arrays; "
                    f"its class has {layout.count()}"
                )
            if arrays:
                self._check_order(_places(layout, twins), name)
            found[name] = _distributed(layout, arrays, twins)
        return found

    def _check_order(self, places: Sequence[_Place], name: str) -> None:
        """Raise where widths of quantizers would be taken for one another: HGQ2 names them."""
        paths = _names(self._group[name].attrs, "weight_names")
        for (place, own), path in zip(places, paths, strict=True):
            held = path.split("/")
            if own not in _WIDTHS or not place or place[-1] not in _ROLES or len(held) < 3:
                continue
            if held[-1].partition(":")[0] != own or not f"_{held[-3]}".endswith(
                f"_{place[-1]}"
            ):
                raise SourceError(
                    f"'{self._label}': layer '{name}' has '{path}' where its class has "
                    f"'{own}' of '{'/'.join(place)}': another version wrote it; save it as "
                    ".keras, where places have names"
                )

    def _arrays(self, name: str) -> list[Array]:
        group = self._group[name]
        paths = _names(group.attrs, "weight_names")
        missing = [path for path in paths if path not in group]
        if missing:
            raise SourceError(f"'{self._label}': layer '{name}' has no array '{missing[0]}'")
        places = [f"'{self._label}': '{path}'" for path in paths]
        found = [group[path] for path in paths]
        for one, where in zip(found, places, strict=True):
            if one.file.filename != self._group.file.filename:
                raise SourceError(f"{where} lies in another file, which is not read")
        return [array_of(*pair) for pair in zip(found, places, strict=True)]


def _names(attributes: Any, name: str) -> list[str]:
    """Return a list of texts, which HDF5 may hold in several attributes."""
    parts: list[Any] = []
    if name in attributes:
        parts = list(attributes[name])
    else:
        number = 0
        while f"{name}{number}" in attributes:
            parts += list(attributes[f"{name}{number}"])
            number += 1
    return [p.decode("utf-8") if isinstance(p, bytes) else str(p) for p in parts]


def _ordered(
    layout: Variables, trainable: bool, path: tuple[str, ...] = ()
) -> Iterator[_Place]:
    """Give the trainable variables of an object in order, or all the others."""
    if layout.frozen:
        if not trainable:
            yield from _ordered(_thawed(layout), True, path)
            yield from _ordered(_thawed(layout), False, path)
        return
    for name, trains in layout.own:
        if trains == trainable:
            yield path, name
    for attribute, part in layout.parts:
        yield from _ordered(part, trainable, (*path, attribute))


def _thawed(layout: Variables) -> Variables:
    return dataclasses.replace(layout, frozen=False)


def _places(layout: Variables, twins: Mapping[_Path, _Path]) -> list[_Place]:
    layout = _thawed(layout)
    places = [*_ordered(layout, True), *_ordered(layout, False)]
    if not twins:
        return places
    return [(path, name) for path, name in places if _first(path, twins) == path]


def _first(path: _Path, twins: Mapping[_Path, _Path]) -> _Path:
    """Return where the object at a path is written: its first place."""
    for end in range(len(path), 0, -1):
        if path[:end] in twins:
            return _first(twins[path[:end]] + path[end:], twins)
    return path


def _twins(layout: Variables) -> dict[_Path, _Path]:
    """Return, for layers with the settings of an earlier one, the way to that one."""
    first: dict[str, _Path] = {}
    found: dict[_Path, _Path] = {}

    def look(one: Variables, path: _Path) -> None:
        for attribute, part in one.parts:
            place = (*path, attribute)
            if part.identity is not None and part.count():
                earlier = first.setdefault(part.identity.key(), place)
                if earlier != place:
                    found[place] = earlier
                    continue
            look(part, place)

    look(layout, ())
    return found


def _distributed(
    layout: Variables, arrays: Sequence[Array], twins: Mapping[_Path, _Path]
) -> LayerWeights:
    # A layer that is frozen as a whole keeps its order.
    layout, places = _thawed(layout), _places(layout, twins)
    found = empty(layout)
    for (path, name), values in zip(places, arrays, strict=True):
        _at(found, path).own[name] = values
    for path, earlier in twins.items():
        _at(found, path[:-1]).parts[path[-1]] = _at(found, earlier)
    return found


def _at(weights: LayerWeights, path: _Path) -> LayerWeights:
    for attribute in path:
        weights = weights.parts[attribute]
    return weights


def empty(layout: Variables) -> LayerWeights:
    """Return the shape of an object's weights, without arrays."""
    return LayerWeights({}, {attribute: empty(part) for attribute, part in layout.parts})


class TreeStore:
    """A group per layer: .keras files, and .weights.h5 files of Keras 3."""

    def __init__(self, group: Any, label: str) -> None:
        self._group, self._label = group, label
        self._stored: list[tuple[Identity, LayerWeights]] = []

    def read(self, layers: Sequence[tuple[str, Variables]]) -> dict[str, LayerWeights]:
        """Return the arrays of the layers; see :class:`Store`."""
        self._stored = []
        layout = Variables(parts=tuple(layers))
        return self._object(self._group, layout, "").parts

    def _object(self, group: Any, layout: Variables, where: str) -> LayerWeights:
        found = empty(layout)
        names = [n for n, t in layout.own if t] + [n for n, t in layout.own if not t]
        held = {} if group is None else _numbered(group, "vars")
        # qkeras-v3's folded layers store their counter under its name, without a number.
        by_name = set() if group is None or "vars" not in group else set(group["vars"])
        names = [name for name in names if name not in by_name]
        if len(held) < len(names):
            raise SourceError(
                f"'{self._label}' does not fit: {where or 'model'} has {len(held)} arrays; "
                f"its class has {len(names)} ({', '.join(names)})"
            )
        # Single numbers count steps of training, as in qkeras-v3's folded layers.
        more = [held[number] for number in sorted(held)[len(names) :]]
        if names and any(getattr(one, "size", 0) != 1 for one in more):
            raise SourceError(
                f"'{self._label}' does not fit: {where} has {len(held)} arrays, and only "
                f"{len(names)} are known ({', '.join(names)}): the others may change what the "
                "layer computes"
            )
        for number, name in enumerate(names):
            place = f"'{self._label}': {where}/vars/{number}"
            if held[number].file.filename != self._group.file.filename:
                raise SourceError(f"{place} lies in another file, which is not read")
            found.own[name] = array_of(held[number], place)
        counts: dict[str, int] = {}
        uncounted = self._uncounted(group, layout)
        for attribute, part in layout.parts:
            inner = group
            if part.kind in uncounted and self._may_be_stored(part.identity):
                inner, path = None, f"layers/{part.kind}"
            elif part.kind:
                number = counts.get(part.kind, 0)
                counts[part.kind] = number + 1
                path = f"layers/{part.kind}" + (f"_{number}" if number else "")
                if inner is not None and "layers" not in inner:
                    path = path.replace("layers", "_layer_checkpoint_dependencies", 1)
            else:
                path = part.path or attribute
            for step in path.split("/"):
                inner = inner[step] if inner is not None and step in inner else None
            place, twin = f"{where}/{path}".strip("/"), None
            if inner is None and part.identity is not None and part.count():
                twin = self._elsewhere(part.identity, place)
            found.parts[attribute] = twin or self._object(inner, part, place)
            if twin is None and part.identity is not None:
                self._stored.append((part.identity, found.parts[attribute]))
        for kind, held_here in uncounted.items():
            if counts.get(kind, 0) < held_here:
                raise SourceError(
                    f"'{self._label}' does not fit: '{where or 'model'}' has {held_here} "
                    f"groups of '{kind}', and nothing says of which of its layers; save the "
                    "whole model as .h5"
                )
        return found

    def _uncounted(self, group: Any, layout: Variables) -> dict[str, int]:
        """Return the classes with fewer groups than layers, and how many groups they have.

        Keras 3 leaves out the number of a layer that is stored elsewhere; Keras 2 may go on
        without a gap.
        """
        of_2 = [p for _, p in layout.parts if p.identity and p.identity.generation == 2]
        wanted = collections.Counter(part.kind for part in of_2)
        names = () if group is None else group.get("layers", ())
        held = collections.Counter(re.sub(r"_\d+$", "", name) for name in names)
        return {
            kind: held[kind]
            for kind, number in wanted.items()
            if held[kind] < number
            and all((f"{kind}_{n}" if n else kind) in names for n in range(held[kind]))
        }

    def _may_be_stored(self, identity: Identity | None) -> bool:
        """Return whether a layer may be one that was met, and stored, before."""
        return (
            identity is not None
            and identity.is_shared
            and any(one.key() == identity.key() for one, _ in self._stored)
        )

    def _elsewhere(self, identity: Identity, where: str) -> LayerWeights | None:
        """Return the arrays of a layer that has none here: Keras writes an object once.

        Returns:
            ``None`` where no layer before has its settings.

        Raises:
            SourceError: The file does not say which object it is.
        """
        key = identity.key()
        found = [held for one, held in self._stored if one.key() == key]
        if not found or (len(found) == 1 and identity.is_shared):
            return found[0] if found else None
        reason = "nothing says that it is the layer before with the same settings"
        if identity.is_shared:
            reason = f"{len(found)} layers before with the same settings may be the object"
        raise SourceError(
            f"'{self._label}' does not fit: layer '{identity.settings[0]}' has no arrays at "
            f"'{where}', and {reason}; save the whole model as .h5, or as .keras"
        )


def _numbered(group: Any, name: str) -> dict[int, Any]:
    inner = group.get(name, {})
    return {int(key): inner[key] for key in inner if key.isdigit()}


def snake(name: str) -> str:
    """Return a class name as Keras calls groups after it."""
    first = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", first).lower()
