-- The columns and the indexes that `afferent mirror` keeps, and a trigger that writes the audit log.
create table rack (
  id uuid primary key default gen_random_uuid(), name text not null, manufacturer text, serial_number text,
  external_id text unique, description jsonb, location jsonb, rack_profile_id text,
  status text not null default 'new', created_at timestamptz, updated_at timestamptz, deleted_at timestamptz,
  unique (manufacturer, serial_number));
create index on rack (name);
create table component (
  id uuid primary key default gen_random_uuid(), type text not null, name text, model text, manufacturer text,
  serial_number text, rack_id uuid, slot_id bigint not null, tray_index bigint not null, host_id bigint not null,
  external_id text, firmware_version text, power_state text, description jsonb, deleted_at timestamptz,
  unique (manufacturer, serial_number));
create unique index on component (type, external_id) where external_id is not null;
create index on component (rack_id) where deleted_at is null;
create table bmc (mac_address macaddr primary key, type text not null, component_id uuid not null, ip_address inet);
create index on bmc (component_id);

create table audit_run (number bigserial primary key, id uuid not null, time timestamptz not null, source text not null);
create table audit (
  number bigserial primary key, run bigint not null, type text not null, tbl text not null, op text not null,
  row text not null, key text not null, field text, old json, new json, reason text not null);

-- One row for a row that came or went, one per column that differs for one that changed.
create function note() returns trigger language plpgsql as $$
declare
  head text := 'insert into audit (run, type, tbl, op, row, key, field, old, new, reason)
    select (select max(number) from audit_run), ''' || tg_argv[0] || ''', ''' || tg_table_name || ''', ';
  who text := 'it.' || tg_argv[1] || '::text, ' || tg_argv[2];
begin
  if tg_op = 'INSERT' then
    execute head || '''insert'', ' || who
      || ', null, null, json_strip_nulls(row_to_json(it)), ''Core lists it'' from added it';
  elsif tg_op = 'DELETE' then
    execute head || '''hard_delete'', ' || who
      || ', null, json_strip_nulls(row_to_json(it)), null, ''Core names another'' from removed it';
  else
    execute head || 'case a.key when ''deleted_at'' then ''soft_delete'' else ''update'' end, ' || who
      || ', a.key, a.value, b.value, ''Core says so'' from removed was join added it using (' || tg_argv[1] || ')
      cross join lateral jsonb_each(to_jsonb(was)) a join lateral jsonb_each(to_jsonb(it)) b on a.key = b.key
      where a.value is distinct from b.value and a.key not in (''created_at'', ''updated_at'')';
  end if;
  return null;
end $$;

create trigger a after insert on rack referencing new table as added
  for each statement execute function note('rack', 'id', 'it.external_id');
create trigger b after update on rack referencing old table as removed new table as added
  for each statement execute function note('rack', 'id', 'it.external_id');
create trigger a after insert on component referencing new table as added
  for each statement execute function note('Compute', 'id', 'it.manufacturer || ''/'' || it.serial_number');
create trigger b after update on component referencing old table as removed new table as added
  for each statement execute function note('Compute', 'id', 'it.manufacturer || ''/'' || it.serial_number');
create trigger a after insert on bmc referencing new table as added
  for each statement execute function note('Compute', 'mac_address', 'it.mac_address::text');
create trigger b after update on bmc referencing old table as removed new table as added
  for each statement execute function note('Compute', 'mac_address', 'it.mac_address::text');
create trigger c after delete on bmc referencing old table as removed
  for each statement execute function note('Compute', 'mac_address', 'it.mac_address::text');
