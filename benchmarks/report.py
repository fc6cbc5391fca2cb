"""Markdown tables of measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from measure import Run
from works import Contender, Work

Measured = Mapping[Contender, list[Run]]
Results = Mapping[Work, Sequence[Measured]]


def at_one_size(results: Results, images: int) -> str:
    """Returns a table of time and memory of every contender, with the ratios of our variants to it."""
    head = [f"{images:,} images", "program", "seconds", "fastest-slowest", "CPU seconds", "peak MB"]
    rows = []
    for work, (measured,) in results.items():
        title = work.title
        for each, runs in measured.items():
            if runs:
                cells = [*_times(runs), f"{peak(runs):.0f}"]
                ratios = [_ratios(measured, each, value) for value in (seconds, peak)]
            else:
                cells, ratios = ["failed", "", "", ""], ["", ""]
            rows.append([title, _bold(each), *cells, *ratios])
            title = ""
    return table([*head, "time: ours / it", "memory: ours / it"], rows, texts=2)


def at_two_sizes(results: Results, small: int, large: int) -> str:
    """Returns a table of the cost of an additional image, without start-up, and of how peak memory grows."""
    head = ["work", "program", f"seconds at {small:,}", f"at {large:,}", "µs per additional image", "ours / it"]
    rows = []
    for work, (first, second) in results.items():
        title = work.title
        costs = {
            each: (seconds(second[each]) - seconds(first[each])) / (large - small) * 1e6
            for each in first
            if first[each] and second[each]
        }
        for each in first:
            if each in costs:
                peaks = peak(first[each]), peak(second[each])
                ratio = "" if each.ours else _forms((own.form, costs[own] / costs[each]) for own in costs if own.ours)
                cells = [f"{seconds(runs):.2f}" for runs in (first[each], second[each])]
                cells += [f"{costs[each]:.1f}", ratio, *(f"{value:.0f}" for value in peaks)]
                cells.append(f"{peaks[1] / peaks[0]:.3f}")
            else:
                cells = ["failed", *[""] * 6]
            rows.append([title, _bold(each), *cells])
            title = ""
    return table([*head, f"peak MB at {small:,}", f"at {large:,}", "ratio"], rows, texts=2)


def seconds(runs: list[Run]) -> float:
    """Returns the median wall time."""
    return median(run.seconds for run in runs)


def peak(runs: list[Run]) -> float:
    """Returns the highest peak of all runs."""
    return max(run.peak_mb for run in runs)


def _times(runs: list[Run]) -> list[str]:
    times = [run.seconds for run in runs]
    cpu = median(run.cpu_seconds for run in runs)
    return [f"{median(times):.2f}", f"{min(times):.2f}-{max(times):.2f}", f"{cpu:.2f}"]


def _ratios(measured: Measured, peer: Contender, value: Callable[[list[Run]], float]) -> str:
    if peer.ours:
        return ""
    of_peer = value(measured[peer])
    return _forms((own.form, value(runs) / of_peer) for own, runs in measured.items() if own.ours and runs)


def _forms(ratios: Iterable[tuple[str, float]]) -> str:
    """Returns the ratios of our variants; all but the plain one with their name."""
    return ", ".join(f"{form} {ratio:.{2 if ratio < 10 else 0}f}".strip() for form, ratio in ratios)


def _bold(contender: Contender) -> str:
    return f"**{contender.name}**" if contender.ours else contender.name


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """Returns a table whose first columns are text and whose other columns are right-aligned."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
