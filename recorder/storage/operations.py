"""What a run does, in its column `operation`. The words are OpenTelemetry's where it has one.

https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/
"""

from __future__ import annotations

#: Of runs that call no model themselves: chains and graphs, tools, retrievers. OpenTelemetry has no word for a chain.
CHAIN, TOOL, RETRIEVAL = "chain", "execute_tool", "retrieval"
STEPS = (CHAIN, TOOL, RETRIEVAL)
