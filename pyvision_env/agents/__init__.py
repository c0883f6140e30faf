"""What acts in the environment: the agent protocol, scripted agents and models behind an OpenAI-compatible server."""

from __future__ import annotations

from pyvision_env.agents.openai_chat import OpenAIAgent
from pyvision_env.agents.protocol import Agent, Context
from pyvision_env.agents.reference import ReferenceAgent
from pyvision_env.agents.scripted import ScriptedAgent

__all__ = ["Agent", "Context", "OpenAIAgent", "ReferenceAgent", "ScriptedAgent"]
