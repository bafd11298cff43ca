"""Claims and the queue of work items (S3).

A claim is never kept to be sent later: it is granted now or not at all. A release can be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from holdfast.api.area import Area, holder, part, said
from holdfast.types import Claim, ClaimPage, Json, WorkItem, WorkItemPage


class Claims(Area):
    """``/api/claims``. The holder is a session or an instance: exactly one of the two."""

    def take(
        self,
        item_id: str,
        *,
        session_id: str | None = None,
        instance_id: str | None = None,
        supervisor_fence: int | None = None,
        hostname: str | None = None,
        tty: str | None = None,
        codebase: str | None = None,
        takeover: bool = False,
    ) -> Claim:
        """Claim an item. If the holder has it already, its claim stays as it is.

        ``Conflict`` ``claim_held`` if another holds it, with S3's owner fields in ``details``;
        ``takeover`` also takes it from a holder that has been silent past the threshold.
        """
        body = said(
            item_id=item_id,
            **holder(session_id, instance_id, supervisor_fence),
            hostname=hostname,
            tty=tty,
            codebase=codebase,
            takeover=takeover or None,
        )
        return cast(Claim, self._now("/api/claims", body))

    def get(self, item_id: str) -> Claim:
        """The claim of an item. ``NotFound`` if it was never claimed."""
        return cast(Claim, self._get(_claim(item_id)))

    def list(
        self,
        *,
        session_id: str | None = None,
        instance_id: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
        cursor: str | None = None,
    ) -> ClaimPage:
        """The claims that are held now, by any holder or by one."""
        page = self._get(
            "/api/claims",
            session_id=session_id,
            instance_id=instance_id,
            limit=limit,
            offset=offset,
            cursor=cursor,
        )
        return cast(ClaimPage, page)

    def release(
        self,
        item_id: str,
        *,
        session_id: str | None = None,
        instance_id: str | None = None,
        supervisor_fence: int | None = None,
        fence: int | None = None,
    ) -> Claim:
        """Release an item. ``Conflict`` ``not_holder`` or ``stale_fence`` if another holds it."""
        body = said(**holder(session_id, instance_id, supervisor_fence), fence=fence)
        return cast(Claim, self._write("POST", f"{_claim(item_id)}/release", body))

    def verify(self, item_id: str, fence: int) -> Json:
        """Check a fence: ``{valid: true, …}``, or ``Conflict`` ``stale_fence``."""
        return cast(Json, self._now(f"{_claim(item_id)}/verify", {"fence": fence}))

    def _now(self, path: str, body: dict[str, Any]) -> Any:
        return self._write("POST", path, body, deferrable=False)


class WorkItems(Area):
    """``/api/work-items``"""

    def put(
        self,
        item_id: str,
        *,
        title: str | None = None,
        track: str | None = None,
        priority: int | None = None,
        depends_on: Sequence[str] | None = None,
    ) -> WorkItem:
        """Add an item to the queue, or change one. A higher ``priority`` comes first."""
        body = said(
            item_id=item_id,
            title=title,
            track=track,
            priority=priority,
            depends_on=None if depends_on is None else [*depends_on],
        )
        return cast(WorkItem, self._write("POST", "/api/work-items", body))

    def get(self, item_id: str) -> WorkItem:
        """One item, with who works on it."""
        return cast(WorkItem, self._get(_item(item_id)))

    def list(
        self,
        *,
        status: str | None = None,
        track: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
        cursor: str | None = None,
    ) -> WorkItemPage:
        """The queue, by priority, then oldest first."""
        page = self._get(
            "/api/work-items", status=status, track=track, limit=limit, offset=offset, cursor=cursor
        )
        return cast(WorkItemPage, page)

    def claim_next(
        self,
        *,
        session_id: str | None = None,
        instance_id: str | None = None,
        supervisor_fence: int | None = None,
        track: str | None = None,
        hostname: str | None = None,
        tty: str | None = None,
        codebase: str | None = None,
        takeover: bool = False,
    ) -> Claim | None:
        """Claim the first item that is open and unblocked; ``None`` if there is none.

        With ``takeover`` also one whose holder has been silent past the threshold.
        """
        body = said(
            **holder(session_id, instance_id, supervisor_fence),
            track=track,
            hostname=hostname,
            tty=tty,
            codebase=codebase,
            takeover=takeover or None,
        )
        reply = self._write("POST", "/api/work-items/claim-next", body, deferrable=False)
        return cast("Claim | None", reply)

    def complete(
        self,
        item_id: str,
        *,
        session_id: str | None = None,
        instance_id: str | None = None,
        supervisor_fence: int | None = None,
        fence: int | None = None,
    ) -> WorkItem:
        """Complete an item. ``Conflict`` ``not_holder`` or ``stale_fence`` if another holds it."""
        body = said(**holder(session_id, instance_id, supervisor_fence), fence=fence)
        return cast(WorkItem, self._write("POST", f"{_item(item_id)}/complete", body))

    def reopen(self, item_id: str, reason: str) -> WorkItem:
        """Reopen an item. ``Conflict`` unless it is completed or cancelled."""
        body = {"reason": reason}
        return cast(WorkItem, self._write("POST", f"{_item(item_id)}/reopen", body))

    def cancel(
        self,
        item_id: str,
        reason: str | None = None,
        *,
        session_id: str | None = None,
        instance_id: str | None = None,
        supervisor_fence: int | None = None,
        fence: int | None = None,
    ) -> WorkItem:
        """Cancel an item: items that wait for it wait no longer, and its claim ends.

        The holder is told with its next heartbeat. If a session or instance is given, the item is
        cancelled only if that one holds it.
        """
        body = said(**holder(session_id, instance_id, supervisor_fence), reason=reason, fence=fence)
        return cast(WorkItem, self._write("POST", f"{_item(item_id)}/cancel", body))

    def remove(self, item_id: str) -> None:
        """Remove an item from the queue. ``Conflict`` ``claim_held`` while it is claimed."""
        self._write("DELETE", _item(item_id))


def _claim(item_id: str) -> str:
    return f"/api/claims/{part(item_id)}"


def _item(item_id: str) -> str:
    return f"/api/work-items/{part(item_id)}"
