"""The instructions of the main loop, found in the text of a disassembler."""

from __future__ import annotations

from benchmarks.gpu import sass
from xpnet.backends.cupy.plans import Plan

TEXT = """
product:
        /*0000*/                   HMMA.1688.F32.TF32 R4, R8, R10, R4 ;
.L_x_1:
        /*0010*/                   LDSM.16.M88.4 R8, [R2] ;
.L_x_2:
        /*0020*/              @!P1 LDS.128 R12, [R3+0x40] ;
        /*0030*/                   HMMA.1688.F32.TF32 R4, R8, R12, R4 ;
        /*0040*/                   HMMA.1688.F32.TF32 R4, R8, R14, R4 ;
        /*0050*/               @P0 BRA `(.L_x_2) ;
        /*0060*/               @P2 BRA `(.L_x_1) ;
        /*0070*/                   EXIT ;
"""


def test_the_main_loop_is_the_shortest_with_the_most_multiplications():
    loop = sass.main_loop(TEXT, "HMMA")
    assert [sass.kind(i) for i in loop] == ["LDS.128", "HMMA", "HMMA", "BRA"]


def test_blocks_are_limited_by_shared_memory_threads_and_registers():
    plan = Plan(128, 128, 1, 1)
    assert sass.blocks(sass.TF32, plan, 48 << 10, 64, "sm_90") == 4
    assert sass.blocks(sass.TF32, plan, 48 << 10, 250, "sm_90") == 2
    assert sass.blocks(sass.TF32, plan, 48 << 10, 64, "sm_120") == 2
    assert sass.blocks(sass.TF32, plan, 0, 24, "sm_120") == 12
