//! models/openai
