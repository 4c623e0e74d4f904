-- Joiners (200C, 200D) stay: words and emoji need them. services.shared.visible_text has the same characters.
create function core.visible_text(p_text text) returns text
language sql immutable parallel safe
return case
  when p_text ~ '[^ -~]' then regexp_replace(
    p_text,
    '[\u0001-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]',
    '�', 'g')
  else p_text
end;

comment on function core.visible_text(text) is
  'Return the text with each control, bidi and invisible format character replaced by U+FFFD.';
