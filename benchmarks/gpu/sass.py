"""What the compiler makes of the matrix products: registers, spills, and the instructions of the
main loop. Needs no GPU.

    python -m benchmarks.gpu.sass [--arch sm_90 ...] [--only WORD] [--all] [--dump FOLDER]

The columns of the table:

    regs, local     registers per thread; bytes of local memory per thread (spills, if not 0)
    shared, blocks  KiB of shared memory per block; blocks that a multiprocessor holds at once
    mma             matrix or multiply-add instructions of one warp in one step of the main loop
    per mma         all instructions in the loop for each of them
    cvt .. LDGSTS   conversions, reads of shared memory by type, and asynchronous copies in the loop
    waves           wavefronts of shared memory of one warp and step, if no bank conflicts occur

Copies are counted as 16 bytes wide: the loop of the table is compiled without the narrow ones.
Everything else is counted in the kernel as it is. The disassembler is a package of NVIDIA: pip
install nvidia-cuda-nvdisasm. NVRTC comes with CuPy's "ctk" extra.
"""

from __future__ import annotations

import argparse
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backends.cupy import launch, plans
from xpnet.backends.cupy.plans import ACROSS_K, ALONG_K, Math, Plan

ARCHITECTURES = ("sm_80", "sm_90", "sm_120")
TF32, HALF = (plans.MATRIX_UNITS[np.dtype(t)] for t in (np.float32, np.float16))
FLOAT = plans.SIMPLE[np.dtype(np.float32)]
IMAGE, FILTER_GRADIENT = (ALONG_K, ACROSS_K, True), (ALONG_K, ALONG_K, True)
PLAIN = (ALONG_K, ACROSS_K, False)
# The kernels of the table: arithmetic, tile, how the operands are read.
MAIN = [(math, tile, reading)
        for math, tile in ((TF32, (128, 128)), (TF32, (128, 256)), (TF32, (64, 256)),
                           (TF32, (64, 64)), (HALF, (128, 128)), (FLOAT, (128, 128)))
        if tile in math.tiles for reading in (IMAGE, FILTER_GRADIENT, PLAIN)]
MULTIPLY = {"Half": "HMMA", "Tf32": "HMMA", "Fma<double>": "DFMA"}       # the others: FFMA
# wavefronts of an instruction of one warp: 128 bytes each
WAVES = {"LDS": 1, "LDS.64": 2, "LDS.128": 4, "LDSM": 4, "STS": 1, "STS.64": 2, "STS.128": 4,
         "LDGSTS": 1, "LDGSTS.128": 4}
# Attributes of kernels, and the form of those that have a value of several bytes.
REGISTERS, FRAME, VALUES = 0x2f, 0x11, 4
HEADER = ("regs", "local", "shared", "blocks", "mma", "per mma", "cvt", "LDS", "LDS.64", "LDS.128",
          "LDSM", "STS", "LDGSTS", "waves", "NVRTC s")


def tool() -> str:
    """The path of nvdisasm."""
    for folder in sys.path:
        found = next(Path(folder).glob("nvidia/*/bin/nvdisasm*"), None) if folder else None
        if found:
            return str(found)
    path = shutil.which("nvdisasm")
    if path is None:
        raise SystemExit("sass: expected NVIDIA's disassembler; pip install nvidia-cuda-nvdisasm, "
                         "or put nvdisasm in the PATH. Received: no nvdisasm.")
    return path


def compiled(kernel: str, arch: str, wide: bool = False) -> tuple[bytes, float]:
    """The machine code of one product, an ELF file, and the compiler's CPU seconds. If `wide`, all
    copies are known to be wide."""
    try:
        from cuda.pathfinder import find_nvidia_header_directory
        from cupy_backends.cuda.libs import nvrtc
        nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        raise SystemExit('sass: expected NVRTC; pip install "xpnet[cuda13]". Received: '
                         f"{error}.") from error
    text = launch.source("product")
    if wide:
        text = text.replace("p.wide_a", "true").replace("p.wide_b", "true")
    program = nvrtc.createProgram(text, "product.cu", (), ())
    nvrtc.addNameExpression(program, kernel)
    started = time.process_time()
    nvrtc.compileProgram(program, (*launch.OPTIONS, f"-I{find_nvidia_header_directory('cudart')}",
                                   "-ftz=true", f"-arch={arch}",
                                   "--device-as-default-execution-space"))
    seconds = time.process_time() - started
    return nvrtc.getCUBIN(program) + b"\0", seconds         # the binding cuts the last byte off


def resources(elf: bytes) -> dict[str, tuple[int, int]]:
    """{symbol: (registers, bytes of local memory) per thread} of the kernels in an ELF file: the
    attributes in its section .nv.info."""
    table, = struct.unpack_from("<Q", elf, 40)
    size, count, index = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + k * size) for k in range(count)]

    def section(name: str) -> tuple[int, int]:
        return next((start, length) for at, _, _, _, start, length in headers
                    if text(headers[index][4] + at) == name)

    def text(at: int) -> str:
        return elf[at:elf.index(b"\0", at)].decode()

    symbols, names = section(".symtab")[0], section(".strtab")[0]
    at, length = section(".nv.info")
    end, found = at + length, {REGISTERS: {}, FRAME: {}}    # type: dict[int, dict[str, int]]
    while at < end:
        form, attribute, extra = struct.unpack_from("<BBH", elf, at)
        if form == VALUES and attribute in found:
            symbol, number = struct.unpack_from("<II", elf, at + 4)
            name, = struct.unpack_from("<I", elf, symbols + 24 * symbol)
            found[attribute][text(names + name)] = number
        at += 4 + (extra if form == VALUES else 0)
    return {name: (number, found[FRAME].get(name, 0)) for name, number in found[REGISTERS].items()}


def main_loop(sass: str, multiply: str) -> list[str]:
    """The instructions of the loop that multiplies: of those with the most multiplications, the
    shortest."""
    labels, code = {}, []
    for line in sass.splitlines():
        if label := re.match(r"(\.L\w+):", line):
            labels[label[1]] = len(code)
        elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?\s*([A-Z][^;]*)", line):
            code.append(found[1])
    loops = []
    for end, instruction in enumerate(code):
        target = re.search(r"BRA.*`\((\.L\w+)\)", instruction)
        if target and labels.get(target[1], end + 1) <= end:
            body = code[labels[target[1]]:end + 1]
            loops.append((-sum(kind(i) == multiply for i in body), len(body), body))
    return min(loops)[2]


def kind(instruction: str) -> str:
    """The instruction without what does not matter for its cost: "LDS.128", "cvt", .."""
    name = instruction.split()[0]
    base = name.split(".")[0]
    if base in ("LDS", "STS", "LDGSTS"):
        width = re.search(r"\.(64|128)\b", name)
        return base + (f".{width[1]}" if width else "")
    return "cvt" if base in ("F2F", "F2FP") else base


def blocks(math: Math, plan: Plan, shared: int, registers: int, arch: str) -> int:
    """Blocks that a multiprocessor holds at once."""
    threads = plans.threads(math, plan)
    kib, most = {"sm_80": (164, 2048), "sm_90": (228, 2048)}.get(arch, (100, 1536))
    return min((kib << 10) // (shared + 1024), most // threads,
               65536 // (-(-registers // 8) * 8 * threads))


def row(math: Math, tile: tuple[int, int], reading: tuple[str, str, bool], arch: str,
        disassembler: str, dump: Path | None = None) -> list[str]:
    plan = Plan(*tile, 1, 1)
    kernel, shared = plans.kernel_name(math, plan, *reading), plans.shared_bytes(math, plan,
                                                                                 *reading)
    elf, seconds = compiled(kernel, arch)
    (registers, local), = resources(elf).values()
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled(kernel, arch, wide=True)[0])
        file.flush()
        sass = subprocess.run([disassembler, "-c", file.name], capture_output=True, text=True,
                              check=True).stdout
    if dump:
        (dump / f"{re.sub('[^A-Za-z0-9]+', '_', kernel)}{arch}.sass").write_text(sass)
    multiply = MULTIPLY.get(math.name, "FFMA")
    loop = main_loop(sass, multiply)
    found = Counter(kind(i) for i in loop)
    mma = found[multiply]
    waves = sum(WAVES.get(name, 0) * number for name, number in found.items())
    cells: list[Any] = [
        registers, local, f"{shared / 1024:.1f}", blocks(math, plan, shared, registers, arch), mma,
        f"{len(loop) / mma:.2f}", found["cvt"], found["LDS"], found["LDS.64"], found["LDS.128"],
        found["LDSM"], sum(found[n] for n in ("STS", "STS.64", "STS.128")),
        found["LDGSTS"] + found["LDGSTS.128"], waves, f"{seconds:.1f}"]
    return [kernel, *map(str, cells)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--all", action="store_true", help="every instantiation, which takes long")
    parser.add_argument("--dump", type=Path, help="a folder for the disassembled code")
    options = parser.parse_args()
    disassembler = tool()
    wanted = [(math, tile, reading) for math in plans.MATHS for tile in math.tiles
              for reading in plans.READINGS] if options.all else MAIN
    for arch in options.arch:
        print(f"\n| {arch} | {' | '.join(HEADER)} |\n|---|{'--:|' * len(HEADER)}")
        for math, tile, reading in wanted:
            if options.only in plans.kernel_name(math, Plan(*tile, 1, 1), *reading):
                cells = row(math, tile, reading, arch, disassembler, options.dump)
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
