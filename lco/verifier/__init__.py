"""The verifier: is the answer in this response the reference answer?

    from lco.verifier import Rules, verify
    verify("… so the area is \\\\boxed{\\\\frac{3}{4}}", "0.75").correct      # True

`verify` judges one response, `verify_many` a batch, `Pool` keeps worker processes between batches.
The rules of judgement are written down in docs/verifier.md. Importing this package loads neither torch nor sympy.
"""

from lco.verifier.rules import Rules, Verdict
from lco.verifier.workers.pool import Pool, verify, verify_many

__all__ = ["Pool", "Rules", "Verdict", "verify", "verify_many"]
