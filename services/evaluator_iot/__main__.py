"""python -m services.evaluator_iot: run the evaluator."""

from services.evaluator_iot.evaluator import LOOPS, build
from services.shared.settings import EvaluatorIot
from services.shared.worker import run_worker

run_worker(EvaluatorIot, build, loops=LOOPS)
