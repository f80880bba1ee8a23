"""Audit: evidence that nothing was lost and nothing doubled."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["audit"])
