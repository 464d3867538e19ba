"""What a compiled kernel is looked through for: products that its source does not write, tf32 that nobody asked for, and
memory touched before the kernel before it is done.

Triton's passes rewrite what they recognise. A sum over a product of broadcasts becomes a tl.dot of its own accord, in tf32
whatever the precision asked for, and (3.6, 3.7) one that counts a depth of 2 four times; Triton's interpreter, which runs the
Python, does not show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Products of matrices in Triton's two languages, and in PTX.
_DOT = re.compile(r"\b(tt\.dot|tt\.dot_scaled|ttng\.warp_group_dot|ttng\.tc_gen5_mma)\s")
_MULTIPLY = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)[\w.:]*")
_GLOBAL = re.compile(r"^\s*(?:@!?%p\d+\s+)?(?:ld|st|atom|red|cp|prefetch)\.[\w.:]*global", re.MULTILINE)


def faults(stages: Mapping[str, str | bytes], precision: str | None) -> list[str]:
    """Sentences, one a fault. stages: what Triton's compiler made, by name; precision: the kernel's PRECISION."""
    text = {name: part if isinstance(part, str) else part.decode("latin1") for name, part in stages.items() if name != "cubin"}
    written = {place for _, _, place in _dots(text["source"])}
    found = []
    for stage in ("ttir", "ttgir"):
        for name, line, place in _dots(text.get(stage, "")):
            if place not in written:
                found.append(f"{stage}: {name} at {place}, where the source writes none")
            if precision == "ieee" and "inputPrecision = tf32" in line and re.search(r"xf32[,>]", line):
                found.append(f"{stage}: {name} at {place} is tf32, where ieee was asked for")
    for multiply in sorted(set(_MULTIPLY.findall(text.get("ptx", "")))):
        if not written:
            found.append(f"ptx: {multiply}, where the source writes no product")
        if precision == "ieee" and ".tf32" in multiply:
            found.append(f"ptx: {multiply}, where ieee was asked for")
    return found


def waits_first(ptx: str) -> bool:
    """Whether a kernel waits for the one before it ahead of its first access to global memory, whatever branch it takes."""
    body = ptx[ptx.index("\n{", ptx.index(".entry")) :]
    wait = body.find("griddepcontrol.wait")
    first = _GLOBAL.search(body)
    branch = re.search(r"^\s*(?:@!?%p\d+\s+)?bra\b", body, re.MULTILINE)
    return wait >= 0 and all(found is None or wait < found.start() for found in (first, branch))


def _dots(mlir: str) -> list[tuple[str, str, str]]:
    """(operation, line, place in the source) of each."""
    known = dict(re.findall(r"^(#loc\d*) = loc\((.*)\)$", mlir, re.MULTILINE))
    found = []
    for line in mlir.splitlines():
        match = _DOT.search(line)
        if match is not None:
            place = re.search(r"loc\((.*)\)\s*$", line)
            found.append((match[1], line, _leaf(place[1], known) if place is not None else "an unknown place"))
    return found


def _leaf(place: str, known: dict[str, str]) -> str:
    """The line that an operation was written on: of a call's place the function's, of a named or fused one the first."""
    seen = 0
    while seen < 100 and not re.match(r'"[^"]*":\d', place):
        inner = re.match(r'(?:callsite\(|fused(?:<[^>]*>)?\[|"[^"]*"\()?(#loc\d*)', place)
        if inner is None:
            break
        place = known.get(inner[1], "")
        seen += 1
    return place.rsplit("/", 1)[-1].replace('"', "")
