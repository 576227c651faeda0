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


_TRANSFORMED: Final = (
    "energy_active",
    "energy_reactive",
    "energy_apparent",
    "energy_associated",
    "energy_base",
    "energy_harmonic",
    "energy_copper_loss",
    "energy_iron_loss",
    "demand_",
    "power_active",
    "power_reactive",
    "power_apparent",
)


def is_transformed(quantity: str) -> bool:
    """Does it flow through current and voltage transformers, so that a meter behind them shows less by both ratios?"""
    return quantity.startswith(_TRANSFORMED)


QUANTITIES: Final[dict[str, Quantity]] = {
    "energy_active_import": Quantity("kWh", "正向有功电能", "active energy, import", cumulative=True),
    "energy_active_export": Quantity("kWh", "反向有功电能", "active energy, export", cumulative=True),
    "energy_active_combined": Quantity("kWh", "组合有功电能", "active energy, combined"),
    "energy_active_absolute": Quantity(
        "kWh", "有功电能（正向加反向）", "active energy, import and export together", cumulative=True
    ),
    "energy_reactive_1": Quantity("kvarh", "组合无功1电能", "reactive energy, combined 1"),
    "energy_reactive_2": Quantity("kvarh", "组合无功2电能", "reactive energy, combined 2"),
    "energy_reactive_import": Quantity("kvarh", "正向无功电能", "reactive energy, import", cumulative=True),
    "energy_reactive_export": Quantity("kvarh", "反向无功电能", "reactive energy, export", cumulative=True),
    # What a meter counts in joules stays in joules: 1 GJ is no whole number of kilowatt hours, and its dial shows GJ.
    "energy_other": Quantity("kWh", "能量（介质未知）", "energy, of what is not known", cumulative=True),
    "energy_other_joule": Quantity(
        "GJ", "能量（介质未知，焦耳表）", "energy, of what is not known, in joules", cumulative=True
    ),
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
    "count": Quantity("1", "无单位计数", "a count without a unit", cumulative=True),
    "flow": Quantity("m3/h", "瞬时流量", "flow"),
    "flow_mass": Quantity("kg/h", "质量流量", "flow, by mass"),
    "power_other": Quantity("kW", "功率（介质未知）", "power, of what is not known"),
    "power_heat": Quantity("kW", "热功率", "thermal power"),
    "power_heat_joule": Quantity("GJ/h", "热功率（焦耳表）", "thermal power, of a meter that counts joules"),
    "temperature_difference": Quantity("K", "温差", "temperature difference"),
    # In seconds: what a meter counts in minutes or seconds is no exact number of hours.
    "operating_time": Quantity("s", "累计工作时间", "time in operation"),
    "on_time": Quantity("s", "通电时间", "time under power"),
    "valve_state": Quantity("1", "阀门（0 开，1 关）", "valve: 0 open, 1 closed"),
    "status_word": Quantity("1", "状态字", "status word, as the meter sends it"),
    "error_flags": Quantity("1", "错误标志", "error flags, as the meter sends them"),
    "records_unread": Quantity("1", "没有对应量的数据项个数", "records of a reply that are no quantity here"),
    "energy_reactive_q1": Quantity("kvarh", "第一象限无功电能", "reactive energy, quadrant 1", cumulative=True),
    "energy_reactive_q2": Quantity("kvarh", "第二象限无功电能", "reactive energy, quadrant 2", cumulative=True),
    "energy_reactive_q3": Quantity("kvarh", "第三象限无功电能", "reactive energy, quadrant 3", cumulative=True),
    "energy_reactive_q4": Quantity("kvarh", "第四象限无功电能", "reactive energy, quadrant 4", cumulative=True),
    "energy_apparent_import": Quantity("kVAh", "正向视在电能", "apparent energy, import", cumulative=True),
    "energy_apparent_export": Quantity("kVAh", "反向视在电能", "apparent energy, export", cumulative=True),
    "energy_associated": Quantity("kWh", "关联电能", "associated energy"),
    "energy_base_import": Quantity("kWh", "正向有功基波电能", "energy of the base wave, import", cumulative=True),
    "energy_base_export": Quantity("kWh", "反向有功基波电能", "energy of the base wave, export", cumulative=True),
    "energy_harmonic_import": Quantity("kWh", "正向有功谐波电能", "harmonic energy, import", cumulative=True),
    "energy_harmonic_export": Quantity("kWh", "反向有功谐波电能", "harmonic energy, export", cumulative=True),
    "energy_copper_loss": Quantity("kWh", "铜损有功电能补偿量", "compensation of copper losses"),
    "energy_iron_loss": Quantity("kWh", "铁损有功电能补偿量", "compensation of iron losses"),
    "energy_credit": Quantity("kWh", "剩余电量", "energy left, prepaid"),
    "energy_overdraft": Quantity("kWh", "透支电量", "energy overdrawn"),
    "demand_active_import": Quantity("kW", "正向有功最大需量", "greatest demand, active, import"),
    "demand_active_export": Quantity("kW", "反向有功最大需量", "greatest demand, active, export"),
    "demand_reactive_import": Quantity("kvar", "正向无功最大需量", "greatest demand, reactive, import"),
    "demand_reactive_export": Quantity("kvar", "反向无功最大需量", "greatest demand, reactive, export"),
    "demand_reactive_1": Quantity("kvar", "组合无功1最大需量", "greatest demand, combined reactive 1"),
    "demand_reactive_2": Quantity("kvar", "组合无功2最大需量", "greatest demand, combined reactive 2"),
    "demand_reactive_q1": Quantity("kvar", "第一象限无功最大需量", "greatest demand, reactive, quadrant 1"),
    "demand_reactive_q2": Quantity("kvar", "第二象限无功最大需量", "greatest demand, reactive, quadrant 2"),
    "demand_reactive_q3": Quantity("kvar", "第三象限无功最大需量", "greatest demand, reactive, quadrant 3"),
    "demand_reactive_q4": Quantity("kvar", "第四象限无功最大需量", "greatest demand, reactive, quadrant 4"),
    "demand_apparent_import": Quantity("kVA", "正向视在最大需量", "greatest demand, apparent, import"),
    "demand_apparent_export": Quantity("kVA", "反向视在最大需量", "greatest demand, apparent, export"),
    "power_active_demand": Quantity("kW", "当前有功需量", "active power, present demand"),
    "power_reactive_demand": Quantity("kvar", "当前无功需量", "reactive power, present demand"),
    "power_apparent_demand": Quantity("kVA", "当前视在需量", "apparent power, present demand"),
    "power_active_minute": Quantity("kW", "一分钟有功平均功率", "active power, mean of one minute"),
    "voltage_distortion": Quantity("%", "电压波形失真度", "distortion of the voltage"),
    "voltage_harmonic": Quantity("%", "电压谐波含量", "harmonic of the voltage"),
    "current_distortion": Quantity("%", "电流波形失真度", "distortion of the current"),
    "current_harmonic": Quantity("%", "电流谐波含量", "harmonic of the current"),
    "meter_phase_angle": Quantity("deg", "相角", "phase angle"),
    "meter_temperature": Quantity("Cel", "表内温度", "temperature inside the meter"),
    "meter_battery_voltage": Quantity("V", "表内电池电压", "voltage of the meter's battery"),
    "meter_battery_time": Quantity("min", "表内电池工作时间", "time that the meter's battery has worked"),
    "meter_constant_active": Quantity("1/kWh", "有功电表常数", "pulses a kilowatt hour"),
    "meter_constant_reactive": Quantity("1/kvarh", "无功电表常数", "pulses a kilovar hour"),
    "meter_credit": Quantity("CNY", "剩余金额", "money left, prepaid"),
    "meter_overdraft": Quantity("CNY", "透支金额", "money overdrawn"),
    "meter_price": Quantity("CNY/kWh", "当前电价", "price of energy"),
    "meter_phase_failures": Quantity("1", "断相次数", "failures of a phase"),
    "meter_phase_failure_time": Quantity("min", "断相累计时间", "time without a phase"),
    "meter_programmings": Quantity("1", "编程次数", "times that it was programmed"),
    "meter_clearings": Quantity("1", "电表清零次数", "times that it was cleared"),
    "meter_clock_settings": Quantity("1", "校时次数", "times that its clock was set"),
    "meter_power_failures": Quantity("1", "掉电次数", "failures of the supply"),
    "meter_cover_openings": Quantity("1", "开表盖次数", "openings of its cover"),
    "meter_terminal_openings": Quantity("1", "开端钮盒次数", "openings of its terminal cover"),
    "meter_demand_resets": Quantity("1", "最大需量清零次数", "times that the demand was cleared"),
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
