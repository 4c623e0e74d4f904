"""python -m services.ops_worker: run the ops worker."""

from services.ops_worker.main import build
from services.shared.settings import OpsSettings
from services.shared.worker import run_worker

run_worker(OpsSettings, build)
