"""What the input guard does to the words of its stream, in Python."""

from codesign.machine.layouts import EVENT
from rtl_templates.guard import DUPLICATE, EARLY_LAST, MISSING_LAST, OUT_OF_RANGE


def guarded(words, n_inputs, n_ends, is_current):
    """Tokens ("event", source, value) and ("end",), sticky error bits and number of samples."""
    tokens, errors, samples = [], 0, 0
    seen, t, dropping = set(), 0, False
    for source, extra, last in words:
        if dropping:
            dropping = not last
            continue
        is_event = is_current or extra == EVENT
        if is_event:
            if source >= n_inputs:
                errors |= 1 << OUT_OF_RANGE
            elif source in seen:
                errors |= 1 << DUPLICATE
            else:
                seen.add(source)
                tokens.append(("event", source, extra if is_current else 0))
        ends = 0
        if not is_event:
            ends = 1
            if t == n_ends - 1 and not last:
                errors |= 1 << MISSING_LAST
                dropping = True
        if last:
            if not is_current and (is_event or t < n_ends - 1):
                errors |= 1 << EARLY_LAST
            ends = n_ends - t
        for _ in range(ends):
            tokens.append(("end",))
            seen = set()
            t += 1
        if t == n_ends:
            t, samples = 0, samples + 1
    return tokens, errors, samples
