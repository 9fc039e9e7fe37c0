"""Read the plain values in a pickle or a file of torch.save, such as training_args.bin, without running any of it.

A pickle is a program: to load one is to run code of its author's choice. Here nothing is imported and nothing is
called. The opcodes of values build values; an object remains a note of what it would have been made of.
"""

import io
import pickletools
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 20
"""Size of a pickle that is read; training arguments have a few kB. No opcode makes more than it is long."""
_MAX_ARCHIVE_BYTES = 16 * MAX_BYTES
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First value in a file of torch before 1.6, which is several pickles: this, the protocol, the platform, the object."""


@dataclass(eq=False)
class Opaque:
    """An object that loading would have made: what a global returns for ``arguments``, with ``state`` set."""

    name: tuple[str, ...]
    """Module and name of the global."""
    arguments: object = ()
    state: object = None


def attributes(value: object) -> dict[str, object]:
    """Attributes that loading would have set on an object; none of another value."""
    return dict(value.state) if isinstance(value, Opaque) and isinstance(value.state, dict) else {}


def read_saved(path: Path) -> object:
    """Read what ``torch.save`` wrote to ``path``, of any version of torch.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, is torn, or is larger than anything that training arguments need.

    """
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            stream = io.BytesIO(_bounded(file.read))
            value = plain_value(stream)
            if value == _LEGACY_MAGIC:
                _, _, value = (plain_value(stream) for _ in range(3))
            return value
        if path.stat().st_size > _MAX_ARCHIVE_BYTES:
            raise ValueError("it is too large")
        try:
            with zipfile.ZipFile(file) as archive:
                name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
                if name is None:
                    raise ValueError("it holds no data.pkl")
                with archive.open(name) as member:
                    return plain_value(io.BytesIO(_bounded(member.read)))
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
            raise ValueError(str(error) or "it is damaged") from error


def _bounded(read: Callable[[int], bytes]) -> bytes:
    data = read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError("it is too large")
    return data


def plain_value(stream: io.BytesIO) -> object:
    """Read the pickle at which ``stream`` stands, and leave the stream behind it.

    Sets are read as lists, and keys of dictionaries that are no strings are left out: nothing is hashed or compared
    that the pickle has built.

    Raises:
        ValueError: it is torn or no pickle.

    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.do(opcode.name, argument)
        return machine.stack.pop()
    except LookupError as error:
        raise ValueError("it is no pickle") from error


_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CALLS = {"REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3}
"""Values that a call takes: what makes the object, and its arguments."""
_FOREIGN = frozenset({"PERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"})
"""Objects that are kept outside the pickle."""
_NOTHING = frozenset({"PROTO", "FRAME", "STOP", "READONLY_BUFFER"})


class _Machine:
    """The stack machine that a pickle is a program of; see pickletools for the opcodes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def do(self, name: str, argument: Any) -> None:  # noqa: PLR0912, PLR0915  one case per kind of opcode
        """Do one opcode."""
        stack = self.stack
        match name:
            case _ if name in _NOTHING:
                pass
            case _ if name in _VALUES:
                stack.append(argument)
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case _ if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case _ if name in _TUPLES:
                stack.append(tuple(self._pop(_TUPLES[name])))
            case "MARK":
                self._marks.append(len(stack))
            case "POP" if self._marks[-1:] == [len(stack)]:
                self._marks.pop()
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._pop_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "LIST" | "FROZENSET":
                stack.append(self._pop_mark())
            case "TUPLE":
                stack.append(tuple(self._pop_mark()))
            case "DICT":
                stack.append(_set_items({}, self._pop_mark()))
            case "APPEND":
                self._extend(self._pop(1))
            case "APPENDS" | "ADDITEMS":
                self._extend(self._pop_mark())
            case "SETITEM":
                items = self._pop(2)
                _set_items(stack[-1], items)
            case "SETITEMS":
                items = self._pop_mark()
                _set_items(stack[-1], items)
            case "BUILD":
                (state,) = self._pop(1)
                if isinstance(stack[-1], Opaque):
                    stack[-1].state = state
            case _ if name in _CALLS:
                made_by, arguments, *_ = self._pop(_CALLS[name])
                stack.append(Opaque(_name(made_by), arguments))
            case "OBJ":
                made_by, *arguments = self._pop_mark() or [None]
                stack.append(Opaque(_name(made_by), arguments))
            case "INST":
                stack.append(Opaque(tuple(argument.split(" ")), self._pop_mark()))
            case "GLOBAL":
                stack.append(Opaque(tuple(argument.split(" "))))
            case "STACK_GLOBAL":
                names = self._pop(2)
                stack.append(Opaque(tuple(names) if all(isinstance(name, str) for name in names) else ()))
            case "BINPERSID":
                stack[-1] = Opaque(())
            case _ if name in _FOREIGN:
                stack.append(Opaque(()))
            case _:
                raise ValueError(f"it has the unknown opcode {name}")

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _pop_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _extend(self, items: Sequence[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)


def _set_items(target: object, items: Sequence[Any]) -> object:
    if isinstance(target, dict):
        pairs = zip(items[::2], items[1::2], strict=False)
        target.update((key, value) for key, value in pairs if isinstance(key, str))
    return target


def _name(made_by: object) -> tuple[str, ...]:
    return made_by.name if isinstance(made_by, Opaque) else ()
