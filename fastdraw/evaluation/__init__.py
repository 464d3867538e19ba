"""What a trained model reaches on held-out images: `fastdraw evaluate`, and the same from Python.

    from fastdraw.evaluation import evaluate_run
    report = evaluate_run("runs/mnist", samples=50)
    report.result.bound.mean, report.result.importance.mean      # nats per image

`import fastdraw` imports nothing of this. Needs the extra: pip install "fastdraw-torch[train]".
"""

from fastdraw.evaluation.bound import Likelihood, likelihood
from fastdraw.evaluation.classes import ClassErrors, class_errors
from fastdraw.evaluation.mean import Mean
from fastdraw.evaluation.of_run import Report, evaluate_run

__all__ = ["ClassErrors", "Likelihood", "Mean", "Report", "class_errors", "evaluate_run", "likelihood"]
