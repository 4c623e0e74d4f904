"""python -m services.ops_worker."""

from services.ops_worker.main import main

main()
