create function audit.detect_attacks()
returns table (finding_id bigint, kind text, subject text, failures bigint)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select d.finding_id, d.kind, d.subject, d.failures from audit._detect_attacks(core.now()) d
$$;

comment on function audit.detect_attacks() is
  'Search once for attacks: update audit.attack_findings, write auth.attack_suspected and open the alert '
  'attack:<kind>:<subject> for each new one, and close the quiet ones. Return the new findings. Any number of copies '
  'may run at once.';
