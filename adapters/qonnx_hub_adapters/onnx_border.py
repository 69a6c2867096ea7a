"""The border of reading: what other libraries raise is told with file, place and reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from onnx_ir import Model

from qonnx_hub_ir.errors import (
    HubError,
    InvalidModelError,
    Issue,
    PassError,
    SourceError,
    words_of,
)
from qonnx_hub_ir.places import place_of
from qonnx_hub_ir.validity import verify


@dataclass(slots=True)
class SourceRecord:
    """What is being read.

    Attributes:
        name: How messages call the source.
        model: What was made of it so far.
    """

    name: str
    model: Model | None = None


@contextmanager
def reading(name: str) -> Iterator[SourceRecord]:
    """Give the record of a source while it is read.

    Raises:
        InvalidModelError: Something failed, and the model breaks rules of the IR.
        SourceError: Something failed in another way; the message names source, node or value,
            and what is wrong.
    """
    found = SourceRecord(name)
    try:
        yield found
    except InvalidModelError:
        raise
    except (SourceError, PassError) as error:
        if isinstance(error, PassError):
            # The rules of the IR usually name the cause better than who tripped over it.
            _require_rules(found, error)
        told = str(error)
        raise SourceError(told if name in told else f"{name}: {told}") from error
    except (HubError, OSError):
        raise
    except Exception as error:  # the border: protobuf, onnx, onnx_ir and numpy raise anything
        _require_rules(found, error)
        place = place_of(error)
        raise SourceError(
            f"{name}: {place or 'the graph'} cannot be read: {words_of(error)}"
        ) from error


def _require_rules(found: SourceRecord, error: Exception) -> None:
    if found.model is None:
        return
    issues = _issues(found.model)
    if issues:
        raise InvalidModelError(f"{found.name} is not a valid model:", issues) from error


def _issues(model: Model) -> list[Issue]:
    """Return the broken rules; none where the rules themselves stumble over the model."""
    try:
        return verify(model)
    except Exception:  # half-read: the error that led here says where
        return []
