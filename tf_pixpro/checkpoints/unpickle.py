"""Reads pickled data without running any of it: an interpreter of the few instructions that checkpoints are made of.

Why not `pickle.Unpickler` with its own `find_class`: it runs no foreign code either, but a file of 9 bytes that stores
one object under the number 2**27 makes it take 2 GB (Python 3.11 to 3.13, measured), and 32 GB under 2**31; and
placeholders for unknown objects would have to be classes that Python calls and sets attributes of.
"""

from __future__ import annotations

import pickletools
from typing import Any, BinaryIO, Callable, Optional

from tf_evonorm.mistakes import Mistake

_CONSTANTS = {
    *(
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
    ),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_MARK = object()


class Record(dict):
    """An object of which only the attributes are kept."""


class Opaque:
    """A global outside `allowed`, or an object made by one: a placeholder; nothing is imported or called."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self):
        return f"Opaque({self.name!r})"


class Built:
    """What a function of `allowed` makes if the file describes it further: `set_state(state)` takes that."""

    def set_state(self, state: Any) -> None:
        """Takes what the file says; raises ValueError if it is no such state."""
        raise NotImplementedError


class _Name:
    """A global that a file asks for; nothing but its entry in the list of what is allowed."""

    def __init__(self, name, call):
        self.name, self.call = name, call


def load(stream: BinaryIO, allowed: dict, persistent: Optional[Callable] = None) -> Any:
    """Reads one pickled object.

    Args:
      stream: a binary file at the object's first byte; it is left behind the last.
      allowed: 'module.name' -> a function of ours that stands for calling it, or None for a name that is only
        handed to one of them, as its text. Every other name, and every object made by it, becomes an `Opaque`
        placeholder, so a file can only combine numbers, texts, containers and what these functions make.
      persistent: what is called for references to data outside the object.

    Returns:
      The object: numbers, texts, containers, `Opaque` placeholders, and what `allowed` and `persistent` made.

    Raises:
      Mistake: if the bytes are no such object, are cut off, or ask for anything else.
    """
    machine = _Machine(allowed, persistent)
    try:
        for instruction, argument, _ in pickletools.genops(stream):
            machine.step(instruction.name, argument)
    except (IndexError, TypeError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise Mistake(f"pickled data must be whole and well formed. Received data that is not: {error!r}.") from error
    return machine.result


class _Machine:
    def __init__(self, allowed, persistent):
        self.allowed, self.persistent = allowed, persistent
        self.stack, self.memo, self.result = [], {}, None

    def step(self, name, argument):
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_FIXED.get(name, argument))
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name not in ("PROTO", "FRAME"):
            operation = getattr(self, f"_{name.lower()}", None)
            if operation is None:
                raise Mistake(f"a checkpoint needs only plain data. Received the instruction {name}.")
            operation(argument)

    def _marked(self):
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _global(self, argument):
        name = ".".join(argument.split(" ", 1))
        self.stack.append(_Name(name, self.allowed[name]) if name in self.allowed else Opaque(name))

    def _stack_global(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        self._global(f"{module} {name}")

    def _reduce(self, _):
        arguments, function = self.stack.pop(), self.stack.pop()
        if isinstance(function, Opaque):
            self.stack.append(Opaque(function.name))
            return
        if not isinstance(function, _Name) or function.call is None:
            raise Mistake(
                f"only known functions are called. Received {getattr(function, 'name', type(function).__name__)}."
            )
        self.stack.append(function.call(*(a.name if isinstance(a, _Name) else a for a in arguments)))

    _newobj = _reduce

    def _newobj_ex(self, _):
        self.stack.pop()  # keyword arguments: only opaque classes are made with any
        if not isinstance(self.stack[-2], Opaque):
            raise Mistake("only opaque objects have keyword arguments. Received another.")
        self._reduce(None)

    def _frozenset(self, _):
        self.stack.append(frozenset(self._marked()))

    def _bytearray8(self, argument):
        self.stack.append(bytes(argument))

    def _build(self, _):
        state, item = self.stack.pop(), self.stack[-1]
        if isinstance(item, Record):
            item.update(state)
        elif isinstance(item, Built):
            item.set_state(state)
        elif not isinstance(item, (dict, Opaque)):  # of an ordered dict, attributes are not kept
            raise Mistake(f"only records and dicts have attributes. Received {type(item).__name__}.")

    def _binpersid(self, _):
        if self.persistent is None:
            raise Mistake("data must lie in the file itself. Received a reference to other data.")
        reference = self.stack.pop()
        self.stack.append(self.persistent(*(r.name if isinstance(r, (_Name, Opaque)) else r for r in reference)))

    def _stop(self, _):
        self.result = self.stack.pop()

    def _pop(self, _):
        self.stack.pop()

    def _pop_mark(self, _):
        self._marked()

    def _dup(self, _):
        self.stack.append(self.stack[-1])

    def _tuple(self, _):
        self.stack.append(tuple(self._marked()))

    def _tuple1(self, _):
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self, _):
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self, _):
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _list(self, _):
        self.stack.append(self._marked())

    def _dict(self, _):
        items = self._marked()
        self.stack.append(dict(zip(items[::2], items[1::2])))

    def _append(self, _):
        item = self.stack.pop()
        if not self._opaque():
            self._into(list).append(item)

    def _appends(self, _):
        items = self._marked()
        if not self._opaque():
            self._into(list).extend(items)

    def _additems(self, _):
        items = self._marked()
        if not self._opaque():
            self._into(set).update(items)

    def _setitem(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        if not self._opaque():
            self._into(dict)[key] = value

    def _setitems(self, _):
        items = self._marked()
        if not self._opaque():
            self._into(dict).update(zip(items[::2], items[1::2]))

    def _opaque(self):
        return isinstance(self.stack[-1], Opaque)

    def _into(self, kind):
        if not isinstance(self.stack[-1], kind):
            raise Mistake(f"items go into a {kind.__name__}. Received {type(self.stack[-1]).__name__}.")
        return self.stack[-1]
