"""python -m services.delivery_worker: run the delivery worker."""

from services.delivery_worker.worker import build
from services.shared.settings import DeliverySettings
from services.shared.worker import run_worker

run_worker(DeliverySettings, build)
