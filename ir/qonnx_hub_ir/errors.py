"""Every error the project raises on purpose.

::

    HubError
    ├── UnknownAdapterError        no adapter accepts the source
    │   └── UnknownNameError       no adapter has that name (also a UsageError)
    ├── AdapterConflictError       two adapters claim one name
    ├── MissingDependencyError     a framework is not installed (also an ImportError)
    ├── SourceError                something cannot be read (file, layer, reason)
    ├── UsageError                 the call itself is wrong (names, shapes, options)
    ├── UnsupportedGraphError      a graph with parts that cannot be read, run or said (gaps)
    │   └── NotExactError          a target cannot say it exactly, nothing near is allowed
    ├── InvalidModelError          a model that breaks the rules of the IR (issues)
    ├── InvalidExportError         an exporter made what ONNX's own checker refuses
    ├── ConversionError            the result computes other values: nothing was written
    ├── PassError                  a pass met what it cannot transform
    ├── NotProvenError             two files are not proven equal: there is no certificate
    ├── TooManyLevelsError         a function with more steps than are looked for
    └── ExecutionError             a node failed while running (node, shapes)

A message says what happened, where, why, and what to do about it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gap:
    """One thing that a target form cannot say exactly.

    Attributes:
        node: Name of the node (or value) concerned.
        op: Its operator, as users know it.
        reason: Why it cannot be said.
        remedy: What the caller can do; empty where nothing helps.
    """

    node: str
    op: str
    reason: str
    remedy: str = ""

    @property
    def place(self) -> str:
        """How messages call the node."""
        return f"{self.op} '{self.node}'" if self.node else self.op

    @property
    def words(self) -> str:
        """The reason, and the remedy where there is one."""
        return f"{self.reason} ({self.remedy})" if self.remedy else self.reason

    def __str__(self) -> str:
        """Return the gap as one line."""
        return f"{self.place}: {self.words}"


@dataclass(frozen=True, slots=True)
class Issue:
    """One rule of the IR that a model breaks.

    Attributes:
        where: Name of the node or value.
        rule: What must hold and does not, in one sentence.
    """

    where: str
    rule: str

    @property
    def place(self) -> str:
        """How messages call the node or value."""
        return self.where

    @property
    def words(self) -> str:
        """The rule."""
        return self.rule

    def __str__(self) -> str:
        """Return the issue as one line."""
        return f"{self.place}: {self.words}"


MOST_PLACES = 20
"""Nodes and values that a message lists; of more, it says how many."""


def _listed(message: str, reasons: Sequence[Gap | Issue]) -> str:
    """Return a message with its reasons below, one line for each node."""
    places: dict[str, list[str]] = {}
    for reason in reasons:
        words = places.setdefault(reason.place, [])
        if reason.words not in words:
            words.append(reason.words)
    lines = [f"  - {place}: {'; '.join(words)}" for place, words in places.items()]
    more = len(lines) - MOST_PLACES
    tail = [f"  - and {more} more nodes"] if more > 0 else []
    return "\n".join([message, *lines[:MOST_PLACES], *tail])


class HubError(Exception):
    """Base of all errors that the project raises on purpose."""


class UnknownAdapterError(HubError):
    """No adapter accepts the source."""


class AdapterConflictError(HubError):
    """Two adapters claim the same name."""


class MissingDependencyError(HubError, ImportError):
    """A framework that an adapter needs is not installed."""


class SourceError(HubError):
    """Something cannot be read: the message names the file, the place and the reason."""


class UsageError(HubError):
    """The call itself is wrong: an unknown name, a shape that does not fit, an option."""


class UnknownNameError(UnknownAdapterError, UsageError):
    """No adapter has that name."""


class UnsupportedGraphError(HubError):
    """A graph that cannot be said exactly in the form asked for.

    Attributes:
        gaps: Everything that is in the way, not only the first.
    """

    def __init__(self, message: str, gaps: Sequence[Gap] = ()) -> None:
        super().__init__(_listed(message, gaps))
        self.gaps = tuple(gaps)


class NotExactError(UnsupportedGraphError):
    """A target form cannot say the graph exactly, and the caller did not allow a near form."""


class InvalidModelError(HubError):
    """A model that breaks the rules of the IR.

    Attributes:
        issues: Every broken rule found.
    """

    def __init__(self, message: str, issues: Sequence[Issue] = ()) -> None:
        super().__init__(_listed(message, issues))
        self.issues = tuple(issues)


class InvalidExportError(HubError):
    """An exporter wrote a model that ONNX's own checker refuses: a defect of this project."""


class ConversionError(HubError):
    """A converted file does not compute what its source computes: nothing was written."""


class NotProvenError(HubError):
    """Equality of two files is not proven, or not in a form that can be verified."""


class TooManyLevelsError(HubError):
    """A function of one number has more steps than anyone wants to look for."""


class PassError(HubError):
    """A pass met something that it cannot transform."""


class ExecutionError(HubError):
    """A node failed while running; the message names node, operator and shapes."""


def reasons_of(error: BaseException) -> tuple[Gap | Issue, ...]:
    """Return every reason of an error, or of the one that it was raised from."""
    if isinstance(error, UnsupportedGraphError):
        return error.gaps
    if isinstance(error, InvalidModelError):
        return error.issues
    return () if error.__cause__ is None else reasons_of(error.__cause__)


LONGEST = 300
"""Characters of a foreign message that are told."""

_INTERNAL = re.compile(
    r"[Aa]ssert|<lambda>|NoneType|object (has no|is not)|positional argument|unhashable"
    r"|unexpected keyword|bad_alloc|0x[0-9a-f]{6}|not subscriptable|std::|_Map_base"
    r"|has no attribute|unsupported operand|object of type|Calling|clone_graph|not iterable"
    r"|outer-scope|must be str|must be a|not supported between|out of range"
)
"""What speaks of a library's inside, and means nothing to a user."""

_ASSERTION = re.compile(r"^.*?Assertion `.*?` failed: (?!Op '%s')")
"""What stands before the words of ONNX's version converter."""

_NOISE = re.compile(
    r"(\[ONNXRuntimeError\] : \d+ : \w+ : |\[\w+Error\]|\S+\.(cc|cpp|h|py):\d+:? ?(In|\w+:)?"
    r"|/onnxruntime_src/\S+|^Error:)\s*"
)
_RUNNING = re.compile(r"while running (\w+) node\. Name:'([^']*)' Status Message: (.*)")
"""How onnxruntime says which node fails."""

_ENFORCED = re.compile(r"^.* was false\.\s*")
"""The condition in C++ that it holds up, before its own words."""

_KINDS = {
    MemoryError: "a size in it is larger than the memory",
    UnicodeError: "a text in it is no UTF-8",
    RecursionError: "it is nested too deeply",
    ZeroDivisionError: "a size or a parameter in it is zero",
    OverflowError: "a number in it is larger than its type holds",
}
_DOES_NOT_FIT = "its inputs, attributes or types do not fit together"


def first_cause(error: BaseException) -> BaseException:
    """Return the error that led to a foreign one."""
    while error.__cause__ is not None and not isinstance(error, HubError):
        error = error.__cause__
    return error


def words_of(error: BaseException) -> str:
    """Return what is wrong, in one line that speaks of the model and not of a library."""
    error = first_cause(error)
    for kind, words in _KINDS.items():
        if isinstance(error, kind):
            return words
    place, text = "", " ".join(str(error).split())
    if running := _RUNNING.search(text):
        place, text = f"{running[1]} '{running[2]}': ", _ENFORCED.sub("", running[3])
    text = _NOISE.sub("", _ASSERTION.sub("", text)).replace(" $", " ").strip()
    if isinstance(error, HubError):
        return text
    if not text or _INTERNAL.search(text) or isinstance(error, (KeyError, AssertionError)):
        return f"{place}{_DOES_NOT_FIT}"
    return place + (text if len(text) <= LONGEST else f"{text[:LONGEST]} ...")


def failure(node: str, args: Sequence[Any], error: Exception) -> str:
    """Return the message for a node that failed: which, on what, and why."""
    shapes = ", ".join(
        f"{a.dtype.name}{list(a.shape)}" if hasattr(a, "dtype") else "-" for a in args
    )
    return f"{node} failed on inputs ({shapes}): {words_of(error)}"
