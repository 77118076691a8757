"""An index by which the response is found that a request of OpenAI's Responses API names.

Revision 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the index. Runs of other APIs have no rows in it."""
    of_responses = sa.column("wire") == sa.text("'openai.responses'")
    op.create_index(
        "runs_by_response",
        "runs",
        ["response_id"],
        sqlite_where=of_responses,
        postgresql_where=of_responses,
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_index("runs_by_response", "runs")
