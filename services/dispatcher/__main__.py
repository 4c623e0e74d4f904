"""python -m services.dispatcher: run the dispatcher."""

from services.dispatcher.dispatcher import build
from services.shared.settings import DispatcherSettings
from services.shared.worker import run_worker

run_worker(DispatcherSettings, build)
