"""Names that go into hardware descriptions and tools' scripts: one pattern, and the words that no tool takes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

TOP_NAME_PATTERN = r"^[a-z][a-z0-9_]{0,31}$"
"""Name of a top module."""
IMAGE_PATTERN = r"^images/[a-z0-9_]{1,64}\.mem$"
"""Path of a memory image in a bundle."""
PROBE_PATTERN = r"^[a-z][a-z0-9_]{0,63}\.[a-z][a-z0-9_]{0,63}$"
"""Hierarchical name of a signal one level below the top module."""
FILE_PATTERN = r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,99}/){0,3}[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
"""Path of a file in a bundle: relative, no part of it begins with a dot."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# IEEE Std 1800-2017, Annex B: every reserved word of SystemVerilog, Verilog's among them.
SYSTEMVERILOG_KEYWORDS = _words(
    """
    accept_on alias always always_comb always_ff always_latch and assert assign assume automatic before begin bind bins
    binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle checker class clocking cmos config const
    constraint context continue cover covergroup coverpoint cross deassign default defparam design disable dist do edge
    else end endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface endmodule
    endpackage endprimitive endprogram endproperty endspecify endsequence endtable endtask enum event eventually expect
    export extends extern final first_match for force foreach forever fork forkjoin function generate genvar global
    highz0 highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir include initial inout input
    inside instance int integer interconnect interface intersect join join_any join_none large let liblist library
    local localparam logic longint macromodule matches medium modport module nand negedge nettype new nexttime nmos nor
    noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive priority program
    property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
    randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0
    rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled
    signed small soft solve specify specparam static string strong strong0 strong1 struct super supply0 supply1
    sync_accept_on sync_reject_on table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri
    tri0 tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped use uwire var
    vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
    """
)

# IEEE Std 1076-2008, 15.10, as far as SystemVerilog does not have them.
VHDL_KEYWORDS = _words(
    """
    abs access after all architecture array assume_guarantee attribute block body buffer bus component configuration
    context disconnect downto elsif entity exit fairness file generic group guarded impure in inertial is label linkage
    literal loop map mod nand next of on open others out package parameter port postponed procedure process property
    protected range record register reject rem report restrict_guarantee return rol ror select severity shared signal
    sla sll sra srl strong subtype then to transport units until variable vmode vprop vunit when
    """
)

# Modules that stand beside the accelerator: in the testbench, around it on a board, and in synthesis.
OWN_MODULES = _words("board_top codesign_tb layer_probe load_source out_of_context stream_sink stream_source top")


def top_name_problem(name: object) -> str | None:
    """Why ``name`` cannot be a top module's, in one line without its place; None if it can."""
    if not isinstance(name, str) or not re.fullmatch(TOP_NAME_PATTERN, name) or name.endswith("\n"):
        return f"{str(name)[:80]!r} must match [a-z][a-z0-9_]{{0,31}}"
    for language, words in (("SystemVerilog", SYSTEMVERILOG_KEYWORDS), ("VHDL", VHDL_KEYWORDS)):
        if name in words:
            return f"{name!r} is a keyword of {language}; choose another name"
    if name in OWN_MODULES:
        return f"{name!r} is the name of a module that stands beside the accelerator; choose another name"
    return None


def _top_name(name: str) -> str:
    problem = top_name_problem(name)
    if problem is not None:
        raise ValueError(problem)
    return name


TopName = Annotated[str, StringConstraints(pattern=TOP_NAME_PATTERN), AfterValidator(_top_name)]
