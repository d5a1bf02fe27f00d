-- A call may ask more than once: its server asks again when it has been answered.
ALTER TABLE questions DROP CONSTRAINT questions_chain_call_key;

-- What the call's server asks for, as JSON; nothing where the agent asks. And what people said to it.
ALTER TABLE questions ADD COLUMN server TEXT, ADD COLUMN answer TEXT;

CREATE INDEX questions_by_call ON questions (chain, call);
