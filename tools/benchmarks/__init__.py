"""How all suites measure, and the table that they print."""

import statistics
import time


def measure(functions, repeats, clock=time.perf_counter):
    """Gives the median seconds of each function, called by turns so that all meet the same noise.

    Args:
        functions: dict of name -> function without arguments.
        repeats: how often each is called, after one call that is not counted.
        clock: gives seconds; time.process_time counts those of this process's own threads.
    """
    seconds = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def print_table(rows):
    """Prints rows of strings as a table in Markdown; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = ["-" * width for width in widths]
    for row in [rows[0], rule, *rows[1:]]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")


def compare(tasks, repeats):
    """Measures each task's functions and prints one line per peer.

    Args:
        tasks: list of (title, functions, targets): functions maps "ours" and each peer to a
            function without arguments; targets maps a peer to the speed-up that is aimed at.
        repeats: how often each function is called.
    """
    rows = [("task", "peer", "ours, ms", "peer, ms", "peer / ours", "aim")]
    for title, functions, targets in tasks:
        seconds = measure(functions, repeats)
        for peer in list(functions)[1:]:
            rows.append(
                (
                    title,
                    peer,
                    f"{seconds['ours'] * 1e3:.2f}",
                    f"{seconds[peer] * 1e3:.2f}",
                    f"{seconds[peer] / seconds['ours']:.2f}",
                    f"{targets[peer]:g}" if peer in targets else "",
                )
            )
    print_table(rows)
