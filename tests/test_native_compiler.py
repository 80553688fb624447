"""Compiled code: made once, found again, shared by processes, and done without where it cannot be had."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autogaze.errors import FallbackWarning
from autogaze.native import compiler, library, loading
from autogaze.native.compiler import CompilerFailedError, NativeError, cache_folder, compiled

CODE = "#include <omp.h>\nint answer(void) { int n = 0;\n#pragma omp parallel reduction(+:n)\n n += 1;\n return n; }\n"


def compilable() -> str:
    """Why nothing can be compiled here; empty where it can."""
    try:
        compiler._processor()
        compiler._compiler()
        compiler._openmp_of_torch()
    except NativeError as error:
        return str(error)
    return ""


needs_compiler = pytest.mark.skipif(bool(compilable()), reason=compilable())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "answer.c"
    path.write_text(CODE)
    return path


@pytest.fixture
def forgotten():
    """The outcome of this process's search is forgotten before and after."""
    loading._outcome.cache_clear()
    yield
    loading._outcome.cache_clear()


def fake(path: Path, script: str) -> str:
    """A command that does this."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


def broken_gcc(folder: Path) -> str:
    """A GCC that compiles nothing, and says so in no encoding."""
    says = "echo '#define __GNUC__ 12'"
    return fake(folder / "gcc", f"case $* in *-dM*) {says};; *) printf 'it is broken \\377' >&2; exit 1;; esac")


def answer(path: Path) -> int:
    return int(ctypes.CDLL(str(path)).answer())


@needs_compiler
def test_compiled_code_shares_torchs_threads(source, tmp_path):
    path = compiled(source, folder=tmp_path / "made")
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert answer(path) == threads
    finally:
        torch.set_num_threads(before)
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
    assert len(loaded) == 1


@needs_compiler
def test_it_is_compiled_once_and_found_without_a_compiler(source, tmp_path, monkeypatch):
    folder = tmp_path / "made"
    first = compiled(source, folder=folder)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert compiled(source, folder=folder) == first
    source.write_text(CODE + "\n")  # other code is another library
    with pytest.raises(NativeError, match="no GCC was found; install gcc"):
        compiled(source, folder=folder)
    assert [path.name for path in folder.iterdir()] == [first.name]


@needs_compiler
def test_another_processor_gets_its_own_library(source, tmp_path, monkeypatch):
    here = compiled(source, folder=tmp_path / "made")
    monkeypatch.setattr(compiler, "_features", lambda: ["avx2", "fma", "something_new"])
    assert compiled(source, folder=tmp_path / "made") != here


@needs_compiler
def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(source, tmp_path, monkeypatch):
    source.write_text("this is not C")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CompilerFailedError, match=r"gcc.* failed: .*error"):
        compiled(source, folder=tmp_path / "made")
    monkeypatch.setenv("CC", f"{broken_gcc(tmp_path)} -m64")
    source.write_text(CODE)
    with pytest.raises(CompilerFailedError, match=r"gcc -m64 .* failed: it is broken"):
        compiled(source, folder=tmp_path / "made")
    assert list((tmp_path / "made").iterdir()) == []


@needs_compiler
def test_other_compilers_than_gcc_are_passed_over(source, tmp_path, monkeypatch):
    """Clang's code would ask torch's OpenMP library for what only clang's own knows."""
    monkeypatch.setenv("CC", fake(tmp_path / "clang", "echo '#define __GNUC__ 4'; echo '#define __clang__ 1'"))
    assert answer(compiled(source, folder=tmp_path / "made")) >= 1
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NativeError, match=r"no GCC was found; install gcc, or name one in \$CC"):
        compiled(source, folder=tmp_path / "elsewhere")


@needs_compiler
def test_sources_and_messages_in_any_encoding(source, tmp_path, monkeypatch):
    source.write_bytes(b"/* \xff */" + CODE.encode())
    assert answer(compiled(source, folder=tmp_path / "made")) >= 1
    monkeypatch.setenv("CC", broken_gcc(tmp_path))
    with pytest.raises(CompilerFailedError, match="it is broken"):
        compiled(source, folder=tmp_path / "elsewhere")


@needs_compiler
def test_what_killed_compilers_left_is_removed(source, tmp_path):
    folder = tmp_path / "made"
    folder.mkdir(mode=0o700)
    left, in_use = folder / "answer-0.so1.part", folder / "answer-0.so2.part"
    for path in (left, in_use):
        path.touch()
    os.utime(left, (1, 1))
    made = compiled(source, folder=folder)
    assert set(folder.iterdir()) == {made, in_use}


@needs_compiler
def test_torchs_own_threads_are_shared_where_others_are_loaded(tmp_path, monkeypatch):
    of_torch, loaded = compiler._openmp_of_torch(), compiler._loaded()
    other = tmp_path / "libgomp-other.so"
    other.touch()
    for paths in ([other, *loaded], [*loaded, other]):
        monkeypatch.setattr(compiler, "_loaded", lambda paths=paths: paths)
        assert compiler._openmp_of_torch() == of_torch


@needs_compiler
def test_without_a_folder_to_write_in_it_is_compiled_for_this_process(source, tmp_path):
    (tmp_path / "file").write_text("")
    path = compiled(source, folder=tmp_path / "file" / "made")
    assert tmp_path not in path.parents
    assert answer(path) >= 1


@needs_compiler
def test_a_folder_that_others_can_write_to_is_not_used(source, tmp_path):
    """They could put anything there, which would be run."""
    folder = tmp_path / "made"
    folder.mkdir()
    for mode, used in ((0o775, False), (0o757, False), (0o755, True)):
        folder.chmod(mode)
        assert (folder in compiled(source, folder=folder).parents) == used


@needs_compiler
def test_nobody_else_can_change_what_was_compiled(source, tmp_path):
    before = os.umask(0)
    try:
        path = compiled(source, folder=tmp_path / "made")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o700


@needs_compiler
def test_without_a_home_it_is_compiled_for_this_process(source, monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert answer(compiled(source)) >= 1


@needs_compiler
def test_processes_that_compile_at_once_agree(source, tmp_path):
    script = (
        "import sys, torch; from pathlib import Path; from autogaze.native.compiler import compiled;"
        "print(compiled(Path(sys.argv[1]), folder=Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "made")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {process.communicate(timeout=120)[0].strip() for process in running}
    assert [str(path) for path in (tmp_path / "made").iterdir()] == list(paths)


@pytest.mark.parametrize(
    ("system", "machine", "features", "reason"),
    [
        ("darwin", "arm64", ["avx2", "fma"], "Linux on x86-64, not darwin on arm64"),
        ("linux", "aarch64", ["avx2", "fma"], "not linux on aarch64"),
        ("linux", "x86_64", ["sse2", "fma"], "lacks AVX2 or FMA"),
    ],
)
def test_systems_that_it_is_not_written_for(system, machine, features, reason, source, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(compiler, "_features", lambda: features)
    monkeypatch.setattr(compiler, "_loaded", None)  # others have no such file to read
    with pytest.raises(NativeError, match=reason):
        compiled(source, folder=tmp_path)


def test_where_libraries_are_kept(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/autogaze")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which its specification says to ignore
    assert cache_folder() == Path("/home/me/.cache/autogaze")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/home/me/.cache/autogaze")


@needs_compiler
def test_a_failing_compiler_is_warned_of_once(tmp_path, monkeypatch, forgotten):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = broken_gcc(tmp_path)
    monkeypatch.setenv("CC", command)
    with pytest.warns(FallbackWarning, match=f"gazing without compiled code, slower: {command}"):
        assert library.library() is None
    assert library.library() is None
    assert library.state().startswith(f"torch ({command} -std")


def test_no_compiler_is_no_reason_to_warn(tmp_path, monkeypatch, forgotten, recwarn):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert library.library() is None
    assert library.state().startswith("torch (")
    assert not recwarn.list


@needs_compiler
def test_a_library_that_cannot_be_loaded(tmp_path, monkeypatch, forgotten):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = compiled(library._SOURCE)
    path.write_bytes(b"damaged")
    with pytest.warns(FallbackWarning, match=str(path)):
        assert library.library() is None


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(loading.SWITCH, "0")
    assert library.library() is None
    assert library.state() == "torch (AUTOGAZE_NATIVE=0)"


def test_the_switch_is_in_the_environment_of_a_process(tmp_path):
    environment = os.environ | {loading.SWITCH: "0", "XDG_CACHE_HOME": str(tmp_path)}
    code = "from autogaze.models.autogaze import AutoGaze; AutoGaze().decoder.start(1, frames=1, max_gazes=1)"
    command = [sys.executable, "-c", code]
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []
