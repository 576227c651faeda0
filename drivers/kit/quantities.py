"""The one dictionary of quantities and units. A platform can rely on it: a quantity has one unit, everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Quantity:
    """`unit` as published (UCUM-like text); `cumulative` registers only ever grow, apart from rollover or a swap."""

    unit: str
    zh: str
    en: str
    cumulative: bool = False


QUANTITIES: Final[dict[str, Quantity]] = {
    "energy_active_import": Quantity("kWh", "正向有功电能", "active energy, import", cumulative=True),
    "energy_active_export": Quantity("kWh", "反向有功电能", "active energy, export", cumulative=True),
    "energy_active_combined": Quantity("kWh", "组合有功电能", "active energy, combined"),
    "energy_reactive_1": Quantity("kvarh", "组合无功1电能", "reactive energy, combined 1"),
    "energy_reactive_2": Quantity("kvarh", "组合无功2电能", "reactive energy, combined 2"),
    "energy_reactive_import": Quantity("kvarh", "正向无功电能", "reactive energy, import", cumulative=True),
    "energy_reactive_export": Quantity("kvarh", "反向无功电能", "reactive energy, export", cumulative=True),
    # What a meter counts in joules stays in joules: 1 GJ is no whole number of kilowatt hours, and its dial shows GJ.
    "energy_heat": Quantity("kWh", "热量", "heat", cumulative=True),
    "energy_heat_joule": Quantity("GJ", "热量（焦耳表）", "heat, of a meter that counts joules", cumulative=True),
    "energy_cooling": Quantity("kWh", "冷量", "cooling", cumulative=True),
    "energy_cooling_joule": Quantity("GJ", "冷量（焦耳表）", "cooling, of a meter that counts joules", cumulative=True),
    "volume": Quantity("m3", "体积", "volume", cumulative=True),
    "volume_water": Quantity("m3", "冷水用量", "cold water", cumulative=True),
    "volume_hot_water": Quantity("m3", "热水用量", "hot water", cumulative=True),
    "volume_drinking_water": Quantity("m3", "直饮水用量", "drinking water", cumulative=True),
    "volume_grey_water": Quantity("m3", "中水用量", "reclaimed water", cumulative=True),
    "volume_gas": Quantity("m3", "燃气用量", "gas", cumulative=True),
    "volume_heating": Quantity("m3", "热媒流量累计", "heat carrier that has flowed", cumulative=True),
    "mass": Quantity("kg", "质量累计", "mass that has flowed", cumulative=True),
    "heat_cost_units": Quantity("1", "热分配表读数", "units of a heat cost allocator", cumulative=True),
    "pulses": Quantity("1", "脉冲计数", "pulses counted", cumulative=True),
    "flow": Quantity("m3/h", "瞬时流量", "flow"),
    "flow_mass": Quantity("kg/h", "质量流量", "flow, by mass"),
    "power_heat": Quantity("kW", "热功率", "thermal power"),
    "power_heat_joule": Quantity("GJ/h", "热功率（焦耳表）", "thermal power, of a meter that counts joules"),
    "temperature_difference": Quantity("K", "温差", "temperature difference"),
    "operating_time": Quantity("h", "累计工作时间", "time in operation"),
    "valve_state": Quantity("1", "阀门（0 开，1 关）", "valve: 0 open, 1 closed"),
    "status_word": Quantity("1", "状态字", "status word, as the meter sends it"),
    "voltage": Quantity("V", "电压", "voltage"),
    "current": Quantity("A", "电流", "current"),
    "power_active": Quantity("kW", "有功功率", "active power"),
    "power_reactive": Quantity("kvar", "无功功率", "reactive power"),
    "power_apparent": Quantity("kVA", "视在功率", "apparent power"),
    "power_factor": Quantity("1", "功率因数", "power factor"),
    "frequency": Quantity("Hz", "频率", "frequency"),
    "battery": Quantity("%", "电池电量", "battery"),
    "battery_voltage": Quantity("V", "电池电压", "battery voltage"),
    "temperature": Quantity("Cel", "温度", "temperature"),
    "humidity": Quantity("%RH", "湿度", "relative humidity"),
    "illuminance": Quantity("lx", "照度", "illuminance"),
    "dew_point": Quantity("Cel", "露点", "dew point"),
    "pressure": Quantity("hPa", "气压", "air pressure"),
    "co2": Quantity("ppm", "二氧化碳", "carbon dioxide"),
    "pm2_5": Quantity("ug/m3", "PM2.5", "particles to 2.5 um"),
    "pm10": Quantity("ug/m3", "PM10", "particles to 10 um"),
    "tvoc": Quantity("ug/m3", "总挥发性有机物", "volatile organic compounds"),
    "moisture": Quantity("%", "含水率", "moisture"),
    "install_height": Quantity("m", "安装高度", "height of installation"),
    "fall_threshold": Quantity("m", "跌倒判定高度", "height below which a fall is seen"),
    "sensitivity": Quantity("1", "灵敏度", "sensitivity"),
    "target_height": Quantity("m", "目标高度", "height of the target"),
    "target_distance": Quantity("m", "目标距离", "distance of the target"),
    "body_movement": Quantity("%", "体动强度", "how much a body moves"),
    "motion": Quantity("1", "动静（0 无人，1 静止，2 活动）", "motion: 0 nobody, 1 still, 2 moving"),
    "breath_rate": Quantity("1/min", "呼吸频率", "breaths a minute"),
    "heart_rate": Quantity("1/min", "心率", "heart beats a minute"),
    "alarm_area": Quantity("m", "报警区域边界", "border of the watched area"),
}
