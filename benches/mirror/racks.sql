analyze r;
insert into rack (external_id, name, manufacturer, serial_number, description, location, rack_profile_id, created_at, updated_at)
  select external_id, name, manufacturer, serial_number, description, location, rack_profile_id, now(), now() from r
  on conflict (external_id) do update set name = excluded.name, manufacturer = excluded.manufacturer,
    serial_number = excluded.serial_number, description = excluded.description, location = excluded.location,
    rack_profile_id = excluded.rack_profile_id, updated_at = now(), deleted_at = null
  where (rack.name, rack.manufacturer, rack.serial_number, rack.description, rack.location, rack.rack_profile_id, rack.deleted_at)
    is distinct from (excluded.name, excluded.manufacturer, excluded.serial_number, excluded.description,
      excluded.location, excluded.rack_profile_id, null);
update rack set deleted_at = now(), updated_at = now() where deleted_at is null and external_id is not null
  and not exists (select 1 from r where r.external_id = rack.external_id);
-- first load: analyze rack;
commit;
