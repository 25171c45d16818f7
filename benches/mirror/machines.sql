analyze m;
insert into component (type, name, model, manufacturer, serial_number, rack_id, slot_id, tray_index, host_id)
  select 'Compute', m.name, m.model, m.manufacturer, m.serial_number, rack.id, m.slot_id, m.tray_index, m.host_id
  from m left join rack on rack.external_id = m.rack and rack.deleted_at is null
  on conflict (manufacturer, serial_number) do update set name = excluded.name, model = excluded.model,
    rack_id = excluded.rack_id, slot_id = excluded.slot_id, tray_index = excluded.tray_index,
    host_id = excluded.host_id, deleted_at = null
  where (component.name, component.model, component.rack_id, component.slot_id, component.tray_index, component.host_id, component.deleted_at)
    is distinct from (excluded.name, excluded.model, excluded.rack_id, excluded.slot_id, excluded.tray_index, excluded.host_id, null);
-- first load: analyze component;
update component set deleted_at = now() where deleted_at is null and type = 'Compute'
  and not exists (select 1 from m where m.manufacturer = component.manufacturer and m.serial_number = component.serial_number);
insert into bmc (mac_address, type, component_id, ip_address)
  select m.mac, 'Host', component.id, m.ip from m join component using (manufacturer, serial_number)
  on conflict (mac_address) do update set component_id = excluded.component_id, ip_address = excluded.ip_address
  where (bmc.component_id, bmc.ip_address) is distinct from (excluded.component_id, excluded.ip_address);
-- first load: analyze bmc;
delete from bmc using component, m where bmc.component_id = component.id and bmc.type = 'Host'
  and m.manufacturer = component.manufacturer and m.serial_number = component.serial_number and bmc.mac_address <> m.mac;
commit;
