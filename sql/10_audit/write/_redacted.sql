-- Uses the patterns of services/shared/audit_writer/cleaning.py, after one quick test for a word that each pattern
-- needs.
create function audit._redacted(p_text text) returns text
language plpgsql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_text !~* '=|://|cookie|authori|bearer|basic|eyj|pdt_|whsec_' then
    return p_text;
  end if;
  p_text := regexp_replace(p_text, '\m(bearer|basic)\s+(?!realm)[\w.~+/=-]{8,}', '\1 [redacted]', 'gi');
  p_text := regexp_replace(p_text, 'eyJ[\w-]{6,}(\.[\w-]*)*', '[redacted]', 'g');
  p_text := regexp_replace(p_text, '\m(pdt_|whsec_)[\w+/=-]+', '[redacted]', 'g');
  p_text := regexp_replace(p_text, '://[^/\s@]*@', '://[redacted]@', 'g');
  p_text := regexp_replace(
    p_text, '(://[\w.-]*(hooks\.slack|webhook\.office|logic\.azure)\.com[:\d]*/)[^\s"'']+', '\1[redacted]', 'gi');
  p_text := regexp_replace(p_text, '\m((set-)?cookie|authorization)\s*:[^\r\n]*', '\1: [redacted]', 'gi');
  return regexp_replace(
    p_text, '((token|passwd|password|pwd|secret|key)=)[^\s&;,"'']+', '\1[redacted]', 'gi');
end
$$;

comment on function audit._redacted(text) is 'Return the text with everything that looks like a secret redacted.';
