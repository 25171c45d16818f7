"""Documents as Core exports them: sites with racks, machines, switches and shelves, some of which differ from what is expected."""

import random


def labels(values):
    return [{"key": key, "value": str(value)} for key, value in values.items()]


def rack(name, number, label=None):
    values = {"chassis.manufacturer": "NVIDIA", "chassis.serial-number": f"RK-{number:05}", "location.datacenter": "dc-2",
              "location.room": f"hall {number % 4 + 1}", "location.position": f"row {number % 12 + 1}"}
    return {"rack_id": name, "metadata": {"name": label or f"Rack {name}", "labels": labels(values)}}


def device(kind, number, rack_id, slot, name, tray=0):
    serial = {"expected_machines": "chassis_serial_number", "expected_switches": "switch_serial_number", "expected_power_shelves": "shelf_serial_number"}[kind]
    group = {"expected_machines": 1, "expected_switches": 2, "expected_power_shelves": 3}[kind]
    mac = f"02:{group:02x}:{number >> 24 & 255:02x}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    prefix = {1: "MC", 2: "SW", 3: "PS"}[group]
    return {"bmc_mac_address": mac, serial: f"{prefix}-{number:06}", "rack_id": rack_id,
            "metadata": {"name": name, "labels": labels({"manufacturer": "NVIDIA", "slot_id": slot, "tray_idx": tray})}}


def make(racks, machines=18, switches=9, shelves=4, drift=0.02, seed=16, prefix="dc2-r"):
    """A site of so many racks; the same one for the same seed."""
    draw = random.Random(seed)
    document = {name: [] for name in ("expected_racks", "expected_machines", "expected_switches", "expected_power_shelves",
                                      "actual_machines", "actual_switches", "actual_power_shelves")}
    made = 0
    for number in range(racks):
        name = f"{prefix}{number:04}"
        document["expected_racks"].append(rack(name, number))
        slots = iter(range(1, 100))
        for kind, many, word in (("expected_power_shelves", shelves, "shelf"), ("expected_machines", machines, "node"), ("expected_switches", switches, "switch")):
            for n in range(many):
                made += 1
                slot = next(slots)
                entry = device(kind, made, name, slot, f"{name}-{word}-{n:02}")
                document[kind].append(entry)
                chance = draw.random()
                if chance < drift / 2:
                    continue
                observed = {"id": f"{word}-{made}", "bmc_mac": entry["bmc_mac_address"]}
                if kind == "expected_machines":
                    seen = slot + 30 if chance < drift else slot
                    observed |= {"chassis_serial": entry["chassis_serial_number"], "placementInRack": {"slotNumber": seen, "trayIndex": 0}, "power_state": "On"}
                else:
                    observed |= {"serial_number": next(value for key, value in entry.items() if key.endswith("serial_number"))}
                document["actual" + kind.removeprefix("expected")].append(observed)
    return document
