"""Contents of an installation: the services, the exporter, and the migrations with the SQL layer as their data.

Tests, benchmarks, docs and deploy/ stay in the checkout.
"""

from setuptools import find_namespace_packages, setup

SQL = "migrations.sql"
packages = find_namespace_packages(
    include=["services", "services.*", "exporter", "migrations", "migrations.versions"], exclude=["*.__pycache__"]
)
setup(
    packages=[*packages, SQL],
    package_dir={SQL: "sql"},
    package_data={
        "migrations": ["alembic.ini", "script.py.mako"],
        "migrations.versions": ["*.sql"],
        SQL: ["*.sql", "*/*.sql", "*/*/*.sql"],
    },
    include_package_data=False,
)
