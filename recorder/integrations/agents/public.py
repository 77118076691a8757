"""The public names of `recorder.integrations.agents`, each with its module."""

from recorder.integrations.agents.session import Session as Session
