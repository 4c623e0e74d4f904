create function audit.detect_attacks()
returns table (finding_id bigint, kind text, subject text, failures bigint)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select d.finding_id, d.kind, d.subject, d.failures from audit._detect_attacks(core.now()) d
$$;

comment on function audit.detect_attacks() is
  'One search for attacks: keeps up audit.attack_findings, writes auth.attack_suspected and opens the alert '
  'attack:<kind>:<subject> for what is new, closes what is quiet. Gives the new findings; safe with any number of copies.';
