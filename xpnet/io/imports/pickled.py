"""Pickles of tensors, read without unpickling: no class is imported and no function is called.

A pickle is a program for a stack machine. The operations that build dicts, lists, tuples, strings
and numbers are carried out here, and so are the few functions that PyTorch's files call: they make
an OrderedDict, and a tensor from its storage. Everything else is refused.

Sources: the documentation of pickletools; torch/_utils.py (_rebuild_tensor_v2) and
torch/serialization.py (persistent_load) for what PyTorch writes.
"""

from __future__ import annotations

import pickletools
import warnings
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from xpnet.backends.arguments import bare, is_integer, shown
from xpnet.buffers import Shape

# dtypes of the storages; "bfloat16" is the first half of a float32
STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}
REBUILD, REBUILD_PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
ORDERED = "collections OrderedDict"
CALLED = REBUILD, REBUILD_PARAMETER, ORDERED
MOST_AXES = 32
MOST_OPERATIONS = 1 << 19       # of a pickle; a tensor takes about 30


class RefusedError(ValueError):
    """Why a pickle is not read; the reader of the file adds the file."""


class Name(NamedTuple):
    """A function or a class of the pickle, which is never looked up."""

    text: str                       # "module name"


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file, of which tensors are views."""

    key: str
    dtype: str
    size: int                       # number of elements


@dataclass(frozen=True)
class View:
    """A tensor: a part of a storage."""

    storage: Storage
    offset: int
    shape: Shape
    strides: Shape                  # in elements


class Machine:
    """The stack machine. `run` carries out a pickle and returns its value."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []       # stacks below the marks
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}  # all that were named

    def run(self, pickle: bytes | BinaryIO) -> Any:
        with warnings.catch_warnings():         # of pickletools, about escapes in texts
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._run(pickle)

    def _run(self, pickle: bytes | BinaryIO) -> Any:
        try:
            for count, (opcode, argument, position) in enumerate(pickletools.genops(pickle)):
                if count == MOST_OPERATIONS:
                    raise RefusedError(f"a pickle of more than {MOST_OPERATIONS:,} operations")
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, argument, position)
        except RefusedError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            raise RefusedError(f"a damaged pickle ({str(error):.100})") from error
        raise RefusedError("a pickle without an end")

    def _step(self, name: str, argument: Any, position: int | None) -> None:
        if name in VALUES:
            self.stack.append(VALUES[name])
        elif name in ARGUMENTS:
            self.stack.append(argument)
        elif name in NEW:
            self.stack.append(NEW[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            self.marked.append(self.stack)
            self.stack = []
        elif name == "GLOBAL":
            self.stack.append(Name(argument))
        elif name in TUPLES:
            count = TUPLES[name]
            values = tuple(self.stack[-count:])
            if len(values) < count:
                raise RefusedError("a damaged pickle (too few values for a tuple)")
            self.stack[-count:] = [values]
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in METHODS:
            METHODS[name](self)
        else:
            raise RefusedError(f"a pickle with the operation {name} at byte {position}, which no "
                               "file of tensors needs")

    def _pop(self) -> Any:
        return self.stack.pop()

    def _since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.marked.pop()
        return values

    def _tuple(self) -> None:
        values = tuple(self._since_mark())
        self.stack.append(values)

    def _set_items(self) -> None:
        self._update(self._since_mark())

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._update([key, value])

    def _update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise RefusedError("a damaged pickle (items for what is no dict)")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int):
                raise RefusedError(f"a dict with the key {shown(key)}, where names are expected")
            target[key] = value

    def _append(self) -> None:
        self._extend([self._pop()])

    def _appends(self) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise RefusedError("a damaged pickle (elements for what is no list)")
        self.stack[-1].extend(values)

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self.stack.append(Name(f"{module} {name}"))

    def _new_object(self) -> None:
        self._pop()
        raise _other_object(self._pop())

    def _build(self) -> None:
        """State of an OrderedDict, such as the versions of modules, which is not needed."""
        self._pop()
        if not isinstance(self.stack[-1], dict):
            raise _other_object(self.stack[-1])

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Name) or function.text not in CALLED:
            raise _other_object(function)
        if function.text == ORDERED and arguments == ():
            self.stack.append({})
        elif function.text == REBUILD and isinstance(arguments, tuple) and len(arguments) >= 4:
            self.stack.append(_view(*arguments[:4]))
        elif (function.text == REBUILD_PARAMETER and isinstance(arguments, tuple) and arguments
              and isinstance(arguments[0], View)):
            self.stack.append(arguments[0])
        else:
            raise RefusedError(f"a call of {function.text.replace(' ', '.')} with other arguments "
                               "than PyTorch writes")

    def _persistent(self) -> None:
        """("storage", class, key, device, elements, ...) becomes a Storage."""
        values = self._pop()
        if not (isinstance(values, tuple) and len(values) >= 5 and values[0] == "storage"
                and isinstance(values[1], Name) and isinstance(values[2], str)
                and is_integer(values[4], 0)):
            raise RefusedError("a pickle with an unknown kind of storage")
        module, _, kind = values[1].text.partition(" ")
        if module != "torch" or kind not in STORAGES:
            raise RefusedError(f"a storage {bare(values[1].text)}, whose numbers are not "
                               "read")
        storage = self.storages[values[2]] = Storage(values[2], STORAGES[kind], int(values[4]))
        self.stack.append(storage)


VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NEW = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
ARGUMENTS = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE",
             "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING")
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
METHODS = {
    "TUPLE": Machine._tuple, "SETITEM": Machine._set_item, "SETITEMS": Machine._set_items,
    "APPEND": Machine._append, "APPENDS": Machine._appends, "REDUCE": Machine._reduce,
    "STACK_GLOBAL": Machine._stack_global, "BUILD": Machine._build,
    "BINPERSID": Machine._persistent, "NEWOBJ": Machine._new_object,
}


def _other_object(thing: Any) -> RefusedError:
    what = thing.text.replace(" ", ".") if isinstance(thing, Name) else type(thing).__name__
    return RefusedError(f"an object of {what[:80]}; only tensors, dicts, lists and numbers are "
                        "read, as torch.save(model.state_dict(), path) writes them")


def _view(storage: Any, offset: Any, shape: Any, strides: Any) -> View:
    """A tensor, if it lies within its storage."""
    sizes = [*shape, *strides] if isinstance(shape, tuple) and isinstance(strides, tuple) else [-1]
    if (not isinstance(storage, Storage) or not all(is_integer(n, 0) for n in (offset, *sizes))
            or len(shape) != len(strides) or len(shape) > MOST_AXES):
        raise RefusedError("a tensor with other arguments than PyTorch writes")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise RefusedError(f"a tensor of shape {shown(shape)} that ends behind its storage of "
                           f"{storage.size} elements")
    return View(storage, offset, shape, strides)
