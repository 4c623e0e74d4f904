"""Kinds of changeable resources: model, view, key and page of each."""

from typing import Any

from pydantic import BaseModel, create_model
from sqlalchemy import Select, Text, select

from services.shared.db import Connection
from services.ui_iot.http.problems import NotFound
from services.ui_iot.resources.entity_tags import Versioned, tag_of
from services.ui_iot.resources.fields import shown
from services.ui_iot.resources.paging import ID, NAME, PageQuery, SortOrder
from services.ui_iot.resources.views import api_view, fetch


class Resource:
    """A kind of resource. All but its model is derived.

    kind: its name in messages and in ingest.lock_resource. view: the api view that has a column for each member of the
    model. key: the member with the id, by which lists are sorted.
    """

    def __init__(self, kind: str, model: type[Versioned], *, view: str, key: str, newest_first: bool = False) -> None:
        self.kind = kind
        self.view = api_view(view, model)
        self._model = model
        self.key = key
        self._key = self.view.c[key]
        parse = NAME if isinstance(self._key.type, Text) else ID
        self.order = SortOrder(view.replace("_", "-"), ((self._key, parse),), descending=newest_first)
        self.page = _make_page(model, view.replace("_", " ").replace("api", "API"))
        """Model of a page of the resources."""

    def select_matching(self, query: PageQuery) -> Select[Any]:
        """Return the select of the resources that have the values that the query names.

        A list names alternatives. A member of the query that is no column of the view is left to the caller.
        """
        statement = select(self.view)
        filters = [name for name in type(query).model_fields if name not in PageQuery.model_fields]
        for column in (self.view.c[name] for name in filters if name in self.view.c):
            value = getattr(query, str(column.key))
            if isinstance(value, list):
                statement = statement.where(column.in_(value)) if value else statement
            elif value is not None:
                statement = statement.where(column == value)
        return statement

    async def get(self, connection: Connection, identity: int | str) -> dict[str, Any]:
        """Return one resource as its view shows it. Raises NotFound."""
        rows = await fetch(connection, self._select(identity))
        if not rows:
            raise NotFound(f"There is no {self.kind} {identity}.")
        return rows[0]

    async def lock(self, connection: Connection, identity: int | str) -> str | None:
        """Lock the resource against changes by other transactions. Return its entity tag, or None if it is missing."""
        await connection.execute("select ingest.lock_resource($1, $2)", self.kind, str(identity))
        # A separate statement, because its snapshot must be younger than the lock.
        rows = await fetch(connection, self._select(identity))
        return tag_of(self._model, self._model.model_validate(rows[0]).model_dump(mode="json")) if rows else None

    def _select(self, identity: int | str) -> Select[Any]:
        return select(self.view).where(self._key == identity)


def _make_page(model: type[Versioned], plural: str) -> type[BaseModel]:
    extra: Any = model.model_config["json_schema_extra"]
    page: type[BaseModel] = create_model(
        f"{model.__name__}Page",
        __doc__=f"A page of {plural}.",
        __config__=shown(items=extra["examples"], next_cursor=None),
        items=(list[model], ...),  # type: ignore[valid-type]  # known when the program runs
        next_cursor=(str | None, ...),
    )
    return page
