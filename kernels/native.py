"""Compiled CPU code: functions written as LLVM IR, called from Python at the price of a builtin.

llvmlite compiles them for the processor at hand, and the machine code is kept on disk, so that the next process
compiles nothing. A compiled function takes and returns integers (addresses, counts) by the protocol of CPython's
own builtins, which costs a third of a ctypes call, and runs without the GIL. It holds no state: any number of
threads may call it.
"""

import ctypes
import hashlib
import os
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import llvmlite.binding as llvm
import platformdirs
from llvmlite import ir
from llvmlite.binding.object_file import ObjectFileRef

Native = Callable[..., int]
Emit = Callable[[ir.IRBuilder, list[Any]], Any]

I64 = ir.IntType(64)
_OBJECT = ir.IntType(8).as_pointer()
_METH_FASTCALL = 0x80  # in the stable ABI since Python 3.10


def fork_lock() -> threading.Lock:
    """A lock that no other thread holds when this process forks: the child would wait for it for ever. Of two that are
    held at the same time, the one that was made first is taken last."""
    lock = threading.Lock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")


def once(make: Callable[[Key], Made]) -> Callable[[Key], Made]:
    """`functools.cache` for what may be made only once: threads that ask for the same at the same time wait."""
    made, lock = dict[Key, Made](), fork_lock()

    @wraps(make)
    def get(key: Key) -> Made:
        with lock:
            if key not in made:
                made[key] = make(key)
            return made[key]

    return get


_LOCK = fork_lock()  # LLVM's engine takes one module at a time
_ADDRESSES: dict[Native, int] = {}


def compile_function(name: str, arguments: int, emit: Emit) -> Native:
    """A Python callable that takes ``arguments`` ints and returns one, all of 64 bits.

    ``emit(builder, values)`` writes the body: it gets the arguments as i64 values and gives the result, an i64.
    """
    module = ir.Module(name)
    body = ir.Function(module, ir.FunctionType(I64, [I64] * arguments), f"{name}.body")
    body.attributes.add("noinline")  # compiled once, for Python and for `address_of`
    builder = ir.IRBuilder(body.append_basic_block())
    builder.ret(emit(builder, list(body.args)))
    _wrap(module, body, name)
    with _LOCK:
        _load(_machine_code(str(module)))
        function = _builtin(name, _engine().get_function_address(name))
        _ADDRESSES[function] = _engine().get_function_address(body.name)
    return function


def address_of(function: Native) -> int:
    """Of a compiled function, for compiled code to call it: it takes and returns i64."""
    return _ADDRESSES[function]


def external(module: ir.Module, symbol: str, result: Any, *kinds: Any, library: Any = ctypes.pythonapi) -> ir.Function:
    """A function of a library, CPython itself by default, declared in a module."""
    if symbol not in module.globals:
        llvm.add_symbol(symbol, ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value)
        ir.Function(module, ir.FunctionType(result, kinds), symbol)
    return module.globals[symbol]


def _wrap(module: ir.Module, body: ir.Function, name: str) -> None:
    """``PyObject *name(PyObject *self, PyObject *const *args, Py_ssize_t n)``: unpack, run without the GIL, pack."""
    python = partial(external, module)
    function = ir.Function(module, ir.FunctionType(_OBJECT, [_OBJECT, _OBJECT.as_pointer(), I64]), name)
    b = ir.IRBuilder(function.append_basic_block())
    with b.if_then(b.icmp_signed("!=", function.args[2], I64(len(body.args))), likely=False):
        b.call(python("PyErr_BadArgument", ir.IntType(32)), [])
        b.ret(ir.Constant(_OBJECT, None))
    number = python("PyLong_AsSsize_t", I64, _OBJECT)
    values = [b.call(number, [b.load(b.gep(function.args[1], [I64(k)]))]) for k in range(len(body.args))]
    thread = b.call(python("PyEval_SaveThread", _OBJECT), [])
    result = b.call(body, values)
    b.call(python("PyEval_RestoreThread", ir.VoidType(), _OBJECT), [thread])
    b.ret(b.call(python("PyLong_FromSsize_t", _OBJECT, I64), [result]))


@cache
def features() -> str:
    """Of this processor, as LLVM lists them: ``+avx2,-avx512f,...``."""
    return str(llvm.get_host_cpu_features().flatten())


@cache
def _target() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features(), opt=3, jit=True)


@cache
def _engine() -> Any:
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())


def _machine_code(source: str) -> bytes:
    """Compiled now, or by an earlier process for the same processor and compiler."""
    made_for = f"{source}\0{llvmlite.__version__}\0{llvm.get_host_cpu_name()}\0{features()}"
    path = cache_folder() / hashlib.sha256(made_for.encode()).hexdigest()
    with suppress(OSError):
        stored = path.read_bytes()
        if hashlib.sha256(stored[32:]).digest() == stored[:32]:  # a truncated file would crash, not fail
            return stored[32:]
    code = _compile(source)
    with suppress(OSError):  # no folder to write to: the next process compiles again
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}")
        part.write_bytes(hashlib.sha256(code).digest() + code)
        part.replace(path)
    return code


def cache_folder() -> Path:
    return Path(platformdirs.user_cache_dir("logsnr"))


def _compile(source: str) -> bytes:
    module = llvm.parse_assembly(source)
    module.verify()
    passes = llvm.create_pass_builder(_target(), llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    return bytes(_target().emit_object(module))


def _load(code: bytes) -> None:
    engine = _engine()
    engine.add_object_file(ObjectFileRef.from_data(code))
    engine.finalize_object()


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef; the builtin points to it for as long as it lives."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def _builtin(name: str, address: int) -> Native:
    definition = _MethodDef(name.encode(), address, _METH_FASTCALL, None)
    # Never freed, not even when modules are at exit: the garbage collector still looks at builtins after that.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(definition))
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
    function: Native = new(ctypes.addressof(definition), None, None)
    return function
