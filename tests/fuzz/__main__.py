"""Prints what comes of many calls of every public name: `python -m tests.fuzz`."""

import argparse
import time
import warnings
from collections import Counter

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from .cases import CASES
from .judge import judge

KINDS = ("confirmed", "not judged", "refused", "obscure", "wrong")
HEADINGS = ("right", "not judged", "errors", "obscure", "wrong")


class OutOfTime(BaseException):
    """Ends the calls of a name whose time is spent."""


def run(case, n_calls, number):
    """Return the outcomes of many calls with how often each came, an example of each, and s."""
    outcomes = Counter()
    examples = {}
    start = time.process_time()

    @seed(number)
    @settings(
        max_examples=n_calls,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(case.arguments)
    def call_once(arguments):
        if time.process_time() - start > case.budget:
            raise OutOfTime
        outcome = judge(case, arguments)
        outcomes[outcome] += 1
        examples.setdefault(outcome, (arguments, outcome.details))

    try:
        call_once()
    except OutOfTime:
        pass
    return outcomes, examples, time.process_time() - start


def row(case, outcomes, seconds):
    """Return a line of the table."""
    by_kind = Counter()
    for outcome, n in outcomes.items():
        by_kind[outcome.kind] += n
    counts = "".join(f"{by_kind[kind]:>11,}" for kind in KINDS)
    return f"{case.name:<38}{outcomes.total():>8,}{counts}{seconds:>8.1f}{case.budget:>8.0f}"


def show_faults(outcomes, examples, most, verbose):
    """Print the faults of one name, the most frequent first."""
    faults = [(outcome, n) for outcome, n in outcomes.most_common() if outcome.is_fault]
    for outcome, n in faults[:most]:
        print(f"    {n:>6,} x {outcome.kind}: {outcome.what}")
        arguments, details = examples[outcome]
        if verbose:
            print(f"           {arguments}\n{details}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of names, such as labels.one_hot")
    parser.add_argument("--calls", type=int, default=5000, help="of each name, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the arguments")
    parser.add_argument("--most", type=int, default=8, help="faults shown for each name")
    parser.add_argument("--verbose", action="store_true", help="show arguments and tracebacks")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # what a call warns of is looked at
    columns = "".join(f"{heading:>11}" for heading in HEADINGS)
    print(f"{'name':<38}{'calls':>8}{columns}{'seconds':>8}{'budget':>8}")
    n_faults = 0
    for case in CASES:
        if options.names and not case.name.startswith(tuple(options.names)):
            continue
        outcomes, examples, seconds = run(case, options.calls, options.seed)
        print(row(case, outcomes, seconds), flush=True)
        show_faults(outcomes, examples, options.most, options.verbose)
        n_faults += sum(n for outcome, n in outcomes.items() if outcome.is_fault)
    raise SystemExit(1 if n_faults else 0)


if __name__ == "__main__":
    main()
