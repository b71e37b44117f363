"""An API that clients of OpenAI's understand, and a chat page."""
