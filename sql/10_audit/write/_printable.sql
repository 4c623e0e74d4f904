-- The class holds control characters, line and paragraph separators, and bidi and zero-width controls. These could forge
-- a second log line or show a name backwards on the auditor's terminal.
create function audit._printable(p_text text, p_length integer) returns text
language sql immutable parallel safe
return regexp_replace(
  left(p_text, p_length),
  '[\u0001-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]', '�', 'g'
);

comment on function audit._printable(text, integer) is
  'Return the text cut to a length in characters, with each control or bidi character replaced by U+FFFD.';
